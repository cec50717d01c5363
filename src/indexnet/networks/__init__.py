"""Whole networks over any resampling: plain PyTorch modules, found by name."""

from indexnet.networks.architectures.autoencoder import Autoencoder
from indexnet.networks.architectures.deep_matting import DeepMatting
from indexnet.networks.architectures.dncnn import DnCNN, DnCNNSegNet
from indexnet.networks.architectures.fastdepth import FastDepth
from indexnet.networks.architectures.matting_unet import MattingUNet
from indexnet.networks.architectures.segnet import SegNet
from indexnet.networks.base import Network, NetworkInfo, create_network, get_network, list_networks, register_network
from indexnet.networks.costs import Costs, count_costs
from indexnet.networks.encoders.encoder import Encoder, create_encoder, list_encoders
from indexnet.networks.encoders.pyramid import create_pyramid, list_pyramids
from indexnet.networks.spec import without_pretrained
from indexnet.networks.tiled.matting_protocol import infer_alpha, prepare_input, to_uint8

__all__ = [
    "Autoencoder",
    "Costs",
    "DeepMatting",
    "DnCNN",
    "DnCNNSegNet",
    "Encoder",
    "FastDepth",
    "MattingUNet",
    "Network",
    "NetworkInfo",
    "SegNet",
    "count_costs",
    "create_encoder",
    "create_network",
    "create_pyramid",
    "get_network",
    "infer_alpha",
    "list_encoders",
    "list_networks",
    "list_pyramids",
    "prepare_input",
    "register_network",
    "to_uint8",
    "without_pretrained",
]
