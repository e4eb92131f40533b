"""What training methods take for the gradient: how far they agree, and what the rate
gradient assumes."""
