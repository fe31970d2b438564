"""What encoders are called: as people call them, and never two of a run alike."""

import pytest
import timm

from hw1_utils.io.names import encoder_title, encoder_titles


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("deit_tiny_patch16_224", "DeiT-Tiny"),
        ("deit_tiny_patch16_224.fb_in1k", "DeiT-Tiny"),
        ("deit_small_distilled_patch16_224", "DeiT-Small distilled"),
        ("deit3_huge_patch14_224", "DeiT3-Huge/14"),
        ("vit_tiny_patch16_224", "ViT-Tiny/16"),
        ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", "ViT-Tiny/16"),
        ("vit_small_patch14_dinov2", "ViT-Small/14 DINOv2"),
        ("vit_small_patch14_reg4_dinov2.lvd142m", "ViT-Small/14-REG4 DINOv2"),
        ("vit_base_patch16_224.mae", "ViT-Base/16 MAE"),
        ("vit_base_patch16_224.dino", "ViT-Base/16 DINO"),
        ("vit_base_patch16_clip_224.openai", "ViT-Base/16 CLIP"),
        ("vit_so400m_patch14_siglip_384", "ViT-So400m/14 SigLIP"),
        ("vit_7b_patch16_dinov3", "ViT-7B/16 DINOv3"),
        ("eva02_tiny_patch14_224", "EVA-02-Tiny/14"),
        ("swin_tiny_patch4_window7_224", "Swin-Tiny"),
        ("swinv2_tiny_window8_256", "SwinV2-Tiny"),
        ("convnext_tiny", "ConvNeXt-Tiny"),
        ("convnext_xlarge.fb_in22k", "ConvNeXt-XLarge"),
        ("convnext_tiny.dinov3_lvd1689m", "ConvNeXt-Tiny DINOv3"),
        ("convnextv2_nano.fcmae", "ConvNeXtV2-Nano FCMAE"),
        ("convnextv2_nano.fcmae_ft_in22k_in1k", "ConvNeXtV2-Nano"),
        ("resnet18", "ResNet-18"),
        ("resnet50d", "ResNet-50d"),
        ("resnet101", "ResNet-101"),
        ("resnetv2_50x1_bit", "ResNetV2-50x1 BiT"),
        ("resnext50_32x4d", "ResNeXt-50-32x4d"),
        ("wide_resnet50_2", "Wide ResNet-50-2"),
        ("densenet121", "DenseNet-121"),
        ("vgg16_bn", "VGG-16-BN"),
        ("tf_efficientnet_lite0", "EfficientNet-Lite0"),
        ("efficientnet_b0", "EfficientNet-B0"),
        ("efficientnetv2_s", "EfficientNetV2-S"),
        ("mobilenetv3_small_100", "MobileNetV3-Small"),
        ("mobilenetv3_small_075", "MobileNetV3-Small 0.75×"),
        ("fastvit_t8", "FastViT-T8"),
        ("hiera_tiny_224.mae", "Hiera-Tiny MAE"),
        *[(name, name) for name in ("test_vit", "vitamin_small_224", "vit_base_patch16_rope_224", "levit_128", "own")],
    ],
)
def test_an_encoder_is_called_what_people_call_it(name, title):
    assert encoder_title(name) == title


@pytest.mark.parametrize(
    ("names", "titles"),
    [
        (["deit_tiny_patch16_224", "resnet18"], ["DeiT-Tiny", "ResNet-18"]),
        (["vit_base_patch16_224", "vit_base_patch16_384", "resnet18"], [*2 * [None], "ResNet-18"]),  # input sizes
        (["resnet18.a1_in1k", "resnet18.tv_in1k"], 2 * [None]),  # tags
        (["tf_efficientnet_lite0", "efficientnet_lite0"], 2 * [None]),  # who ported them
    ],
)
def test_where_two_encoders_have_one_name_they_are_called_as_timm_calls_them(names, titles):
    assert encoder_titles(names) == [title or name for name, title in zip(names, titles, strict=True)]


def test_no_two_of_all_encoders_share_a_title():
    names = sorted({*timm.list_models(), *timm.list_pretrained()})
    titles = encoder_titles(names)
    assert len(set(titles)) == len(names) > 1000
