"""Training: state, update rule, step, evaluation, guards and the loop around them."""
