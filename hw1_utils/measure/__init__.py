"""What training and inference cost, and where the numbers come from."""
