"""The compile kit: how a function and its models become a bundle."""
