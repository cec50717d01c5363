"""Encoders opened at their strides: those of timm, and the exact ones of released networks."""

from indexnet.networks.encoders.encoder import Encoder, create_encoder, encoder_factory, list_encoders
from indexnet.networks.encoders.pyramid import create_pyramid, list_pyramids

__all__ = ["Encoder", "create_encoder", "create_pyramid", "encoder_factory", "list_encoders", "list_pyramids"]
