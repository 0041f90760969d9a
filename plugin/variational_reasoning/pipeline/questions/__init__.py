"""Stage 0: questions, traces and solutions of any data set in the columns of our tables."""
