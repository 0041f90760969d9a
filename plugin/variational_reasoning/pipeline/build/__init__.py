"""Stage 8: tables of traces, log-likelihoods and verdicts become weighted training rows."""
