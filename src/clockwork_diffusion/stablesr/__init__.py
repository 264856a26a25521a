"""StableSR: a UNet with SPADE, its structure encoder, and the decoder that corrects."""
