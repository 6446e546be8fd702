"""What a stage needs of a device's memory, part by part, computed from sizes and settings before anything is loaded."""
