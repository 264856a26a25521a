import copy

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from clockwork_diffusion.adaptors import IdentityAdaptor, build_adaptor
from clockwork_diffusion.unet import CUTS, SplitUNet


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("size", [(16, 16), (17, 20)])
@torch.no_grad()
def test_full_pass_equals_the_unet_bit_for_bit(unet, inputs, cut, size):
    _, t, c = inputs
    x = torch.randn(2, 4, *size)
    assert torch.equal(SplitUNet(unet, cut).full(x, t, c).eps, unet(x, t, c).sample)


@pytest.mark.parametrize("cut", CUTS)
@torch.no_grad()
def test_a_light_pass_with_the_true_features_equals_the_unet(unet, inputs, cut):
    split = SplitUNet(unet, cut)
    step = split.full(*inputs)
    identity = IdentityAdaptor(cut=cut)
    assert torch.equal(split.adapt(*inputs, step.r_out, identity).eps, step.eps)
    assert torch.equal(split.reuse(*inputs, step.up, step.r_out).eps, step.eps)


@torch.no_grad()
def test_features_have_the_places_that_the_paper_names(unet, inputs):
    kept = {}

    def keep(name):
        return lambda _module, _inputs, output: kept.update({name: output})

    handles = [
        unet.down_blocks[0].register_forward_hook(keep("down0")),
        unet.up_blocks[2].attentions[-1].register_forward_hook(keep("up2")),
        unet.up_blocks[2].register_forward_hook(keep("up2 upsampled")),
    ]
    unet(*inputs)
    for handle in handles:
        handle.remove()
    step = SplitUNet(unet, "stage1").full(*inputs)
    assert torch.equal(step.r_in, kept["down0"][0])
    assert torch.equal(step.r_out, kept["up2"][0])
    assert torch.equal(step.up, kept["up2 upsampled"])


@pytest.mark.parametrize("cut", CUTS)
@torch.no_grad()
def test_controlnet_residuals_arrive(unet, inputs, cut):
    torch.manual_seed(2)
    control = ControlNetModel.from_unet(
        unet, conditioning_embedding_out_channels=(8, 16)
    )
    # The residuals of an untrained ControlNet are zero and would test nothing.
    for parameter in control.parameters():
        parameter.add_(0.05)
    skips, middle = control(
        *inputs, controlnet_cond=torch.rand(2, 3, 32, 32), return_dict=False
    )
    residuals = {
        "down_block_additional_residuals": skips,
        "mid_block_additional_residual": middle,
    }
    expected = unet(*inputs, **residuals).sample
    assert not torch.allclose(expected, unet(*inputs).sample)
    split = SplitUNet(unet, cut)
    step = split.full(*inputs, **residuals)
    assert torch.equal(step.eps, expected)
    light = split.reuse(*inputs, step.up, step.r_out, **residuals)
    assert torch.equal(light.eps, expected)


@torch.no_grad()
def test_masks_and_freeu_arrive(unet, inputs):
    unet = copy.deepcopy(unet)
    mask = {"encoder_attention_mask": torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]])}
    plain = unet(*inputs).sample
    masked = unet(*inputs, **mask).sample
    assert not torch.equal(plain, masked)
    assert torch.equal(SplitUNet(unet).full(*inputs, **mask).eps, masked)
    unet.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    freed = unet(*inputs).sample
    assert not torch.equal(plain, freed)
    assert torch.equal(SplitUNet(unet).full(*inputs).eps, freed)


@pytest.mark.parametrize("kind", ["identity", "resnet"])
@torch.no_grad()
def test_both_passes_compile_as_one_graph(unet, inputs, kind):
    torch._dynamo.reset()
    split = SplitUNet(unet)
    adaptor = build_adaptor(kind, unet, "stage1", 8)
    pooled = torch.randn(2, 8)
    full = torch.compile(split.full, fullgraph=True, backend="aot_eager")
    adapt = torch.compile(split.adapt, fullgraph=True, backend="aot_eager")
    reuse = torch.compile(split.reuse, fullgraph=True, backend="aot_eager")
    step = split.full(*inputs)
    torch.testing.assert_close(full(*inputs).eps, step.eps)
    torch.testing.assert_close(
        adapt(*inputs, step.r_out, adaptor, pooled).eps,
        split.adapt(*inputs, step.r_out, adaptor, pooled).eps,
    )
    torch.testing.assert_close(
        reuse(*inputs, step.up, step.r_out).eps,
        split.reuse(*inputs, step.up, step.r_out).eps,
    )


def test_what_cannot_be_split_is_refused(unet):
    with pytest.raises(ValueError, match="cut 'stage9' is not one of stage1, stage2"):
        SplitUNet(unet, "stage9")
    with pytest.raises(ValueError, match="Linear is not a UNet of Stable Diffusion"):
        SplitUNet(torch.nn.Linear(2, 2))
    shallow = UNet2DConditionModel(
        block_out_channels=(8, 8),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=2,
    )
    with pytest.raises(ValueError, match="'stage2' needs a UNet of at least 3 levels"):
        SplitUNet(shallow, "stage2")


@torch.no_grad()
def test_t2i_adapter_residuals_are_refused(unet, inputs):
    residuals = {"down_intrablock_additional_residuals": [inputs[0]]}
    with pytest.raises(ValueError, match="T2I-Adapter"):
        SplitUNet(unet).full(*inputs, **residuals)
