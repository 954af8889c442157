"""Weights of VAR's decoder, which a published file has and the program must not need."""

import torch


def decoder_weights(width=160, width_mult=(1, 1, 2, 2, 4), blocks=3, latent_dim=32):
    """Zeros in the published layout."""
    convolutions, norms = {}, {}

    def convolution(name, after, before, kernel):
        convolutions[name] = (after, before, kernel, kernel)

    def resnet(name, before, after):
        norms[f"{name}.norm1"], norms[f"{name}.norm2"] = before, after
        convolution(f"{name}.conv1", after, before, 3)
        convolution(f"{name}.conv2", after, after, 3)
        if before != after:
            convolution(f"{name}.nin_shortcut", after, before, 1)

    def attention(name, channels):
        norms[f"{name}.norm"] = channels
        convolution(f"{name}.qkv", 3 * channels, channels, 1)
        convolution(f"{name}.proj_out", channels, channels, 1)

    channels = width * width_mult[-1]
    convolution("post_quant_conv", latent_dim, latent_dim, 3)
    convolution("decoder.conv_in", channels, latent_dim, 3)
    resnet("decoder.mid.block_1", channels, channels)
    attention("decoder.mid.attn_1", channels)
    resnet("decoder.mid.block_2", channels, channels)
    for i in reversed(range(len(width_mult))):
        for j in range(blocks):
            resnet(f"decoder.up.{i}.block.{j}", channels, width * width_mult[i])
            channels = width * width_mult[i]
            if i == len(width_mult) - 1:
                attention(f"decoder.up.{i}.attn.{j}", channels)
        if i:
            convolution(f"decoder.up.{i}.upsample.conv", channels, channels, 3)
    norms["decoder.norm_out"] = channels
    convolution("decoder.conv_out", 3, channels, 3)

    weights = {f"{name}.weight": torch.zeros(shape) for name, shape in convolutions.items()}
    weights |= {f"{name}.bias": torch.zeros(shape[0]) for name, shape in convolutions.items()}
    for name, channels in norms.items():
        weights |= {f"{name}.weight": torch.ones(channels), f"{name}.bias": torch.zeros(channels)}
    return weights
