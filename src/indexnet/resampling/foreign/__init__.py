"""Operators in networks of others: the places where a network resamples, and operators in their stead."""
