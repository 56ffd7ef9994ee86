"""What is set up, what is missing, what the machine can do, and the command that mends each."""
