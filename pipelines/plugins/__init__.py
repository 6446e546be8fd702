"""What users bring along: reward functions in files of their own or in installed packages."""
