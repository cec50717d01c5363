"""Whole networks over any resampling: plain PyTorch modules, found by name."""

from indexnet.networks.autoencoder import Autoencoder
from indexnet.networks.base import (
    Network,
    NetworkInfo,
    create_network,
    get_network,
    list_networks,
    register_network,
    without_pretrained,
)
from indexnet.networks.costs import Costs, count_costs
from indexnet.networks.deep_matting import DeepMatting
from indexnet.networks.encoders import Encoder, create_encoder, list_encoders
from indexnet.networks.inference import infer_alpha, prepare_input, to_uint8
from indexnet.networks.matting_unet import MattingUNet

__all__ = [
    "Autoencoder",
    "Costs",
    "DeepMatting",
    "Encoder",
    "MattingUNet",
    "Network",
    "NetworkInfo",
    "count_costs",
    "create_encoder",
    "create_network",
    "get_network",
    "infer_alpha",
    "list_encoders",
    "list_networks",
    "prepare_input",
    "register_network",
    "to_uint8",
    "without_pretrained",
]
