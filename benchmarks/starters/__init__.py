"""The starter backbones against their own random initialisation, and transfer against training from scratch."""
