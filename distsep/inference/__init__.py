"""What is concluded from the data. Knows nothing of MPI: sums come in as functions."""
