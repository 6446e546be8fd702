"""From the records of a run to its summary, figures, words and page. Knows no kind of stage."""
