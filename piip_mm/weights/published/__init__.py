"""Arguments and names of the published PIIP code."""
