"""What was measured, and what came out."""
