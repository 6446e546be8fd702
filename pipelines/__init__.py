"""What runs: stages chained by a workflow file into a run that can be stopped, resumed and repeated."""
