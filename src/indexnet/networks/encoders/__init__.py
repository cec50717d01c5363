"""Encoders opened at their strides: those of timm, and the exact ones of released networks."""

from indexnet.networks.encoders.encoder import Encoder, create_encoder, list_encoders

__all__ = ["Encoder", "create_encoder", "list_encoders"]
