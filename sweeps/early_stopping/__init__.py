"""Early stopping of trials that can no longer change the recommendation."""
