"""
Model directories with random weights and a small tokenizer, made on the spot: no downloads.

The tests use them tiny; the benchmark of backbones makes them as large as the published models.

    PYTHONPATH=. python test/random_vlms.py kosmos2 /tmp/kosmos2
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
import sys
from typing import Any

from tokenizers import decoders, models, pre_tokenizers, processors, Tokenizer, trainers
import torch
import transformers

CORPUS = ['pick up the red block', 'open the drawer', 'An image of a robot', 'close the drawer',
          'USER: ASSISTANT: You are a helpful assistant. user assistant system User: Assistant:']
SPECIAL = {
    'kosmos2': ['<grounding>'],
    'paligemma': ['<image>'],
    'llava': ['<image>'],
    'smolvlm': ['<image>', '<fake_token_around_image>', '<global-img>', '<end_of_utterance>',
                '<|im_start|>'],
    'idefics3': ['<image>', '<fake_token_around_image>', '<global-img>', '<end_of_utterance>',
                 '<|im_start|>'],
    'qwen2_5_vl': ['<|im_start|>', '<|im_end|>', '<|vision_start|>', '<|vision_end|>',
                   '<|image_pad|>'],
    'florence2': ['<image>'],
}
SPECIAL['paligemma2'] = SPECIAL['paligemma']
SPECIAL['qwen3_vl'] = SPECIAL['qwen2_5_vl']
ADDS_BOTH_ENDS = ('kosmos2',)
ADDS_START = ('llava',)
ENDS = {'kosmos2': ('<s>', '<pad>', '</s>', '<unk>'),
        'paligemma': ('<pad>', '<eos>', '<bos>', '<unk>'),
        'paligemma2': ('<pad>', '<eos>', '<bos>', '<unk>')}


def tokenizer(kind: str) -> transformers.PreTrainedTokenizerFast:
    """Train a byte-level tokenizer with the family's special tokens."""
    ends = ENDS.get(kind, ('<s>', '<pad>', '</s>', '<unk>'))
    bos, eos = ('<bos>', '<eos>') if '<bos>' in ends else ('<s>', '</s>')
    made = Tokenizer(models.BPE(unk_token='<unk>'))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(CORPUS * 3, trainers.BpeTrainer(
        vocab_size=420, special_tokens=[*ends, *SPECIAL[kind]], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    single = '<s> $A </s>' if kind in ADDS_BOTH_ENDS else '<s> $A'
    if kind in ADDS_BOTH_ENDS + ADDS_START:
        made.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[('<s>', 0), ('</s>', 2)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=bos, eos_token=eos, pad_token='<pad>', unk_token='<unk>',
        additional_special_tokens=SPECIAL[kind])


def config(kind: str, words: transformers.PreTrainedTokenizerFast,
           sizes: Mapping[str, Any] | None = None) -> transformers.PreTrainedConfig:
    """Describe a network; `sizes` replaces the tiny one's `text`, `vision` and `top` entries."""
    name, text, vision, top = _TINY[kind](len(words), words)
    sizes = sizes or {}
    return getattr(transformers, name)(text_config={**text, **sizes.get('text', {})},
                                       vision_config={**vision, **sizes.get('vision', {})},
                                       **{**top, **sizes.get('top', {})})


def make(kind: str, directory: Path, sizes: Mapping[str, Any] | None = None) -> Path:
    """Save a random model and its tokenizer; a scaled noise in every weight makes it sensitive."""
    torch.manual_seed(0)
    words = tokenizer(kind)
    network = transformers.AutoModelForImageTextToText.from_config(config(kind, words, sizes))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    network.save_pretrained(directory)
    words.save_pretrained(directory)
    return directory


def _image(words: transformers.PreTrainedTokenizerFast, name: str = '<image>') -> int:
    return words.convert_tokens_to_ids(name)


def _kosmos2(vocab: int, words: Any) -> tuple:
    return ('Kosmos2Config',
            {'vocab_size': vocab, 'max_position_embeddings': 256, 'embed_dim': 32, 'layers': 2,
             'ffn_dim': 64, 'attention_heads': 4, 'dropout': 0.0, 'attention_dropout': 0.0,
             'activation_dropout': 0.0, 'layerdrop': 0.0, 'bos_token_id': 0, 'pad_token_id': 1,
             'eos_token_id': 2},
            {'hidden_size': 24, 'intermediate_size': 48, 'num_hidden_layers': 2,
             'num_attention_heads': 4, 'image_size': 28, 'patch_size': 14},
            {'latent_query_num': 4})


def _siglip() -> dict[str, Any]:
    return {'model_type': 'siglip_vision_model', 'hidden_size': 24, 'intermediate_size': 48,
            'num_hidden_layers': 2, 'num_attention_heads': 4, 'image_size': 28, 'patch_size': 14}


def _paligemma(vocab: int, words: Any, text_type: str = 'gemma') -> tuple:
    text = {'model_type': text_type, 'vocab_size': vocab, 'hidden_size': 32, 'head_dim': 8,
            'intermediate_size': 64, 'num_hidden_layers': 2, 'num_attention_heads': 4,
            'num_key_value_heads': 1, 'pad_token_id': 0}
    return ('PaliGemmaConfig', text, {**_siglip(), 'projection_dim': 32},
            {'image_token_index': _image(words), 'projection_dim': 32, 'hidden_size': 32})


def _paligemma2(vocab: int, words: Any) -> tuple:
    return _paligemma(vocab, words, 'gemma2')


def _llama(vocab: int) -> dict[str, Any]:
    return {'model_type': 'llama', 'vocab_size': vocab, 'hidden_size': 32,
            'intermediate_size': 64, 'num_hidden_layers': 2, 'num_attention_heads': 4,
            'num_key_value_heads': 2, 'max_position_embeddings': 256, 'pad_token_id': 1}


def _llava(vocab: int, words: Any) -> tuple:
    return ('LlavaConfig', _llama(vocab), {**_siglip(), 'model_type': 'clip_vision_model'},
            {'image_token_index': _image(words), 'vision_feature_layer': -2,
             'vision_feature_select_strategy': 'default', 'image_seq_length': 4})


def _smolvlm(vocab: int, words: Any, name: str = 'SmolVLMConfig') -> tuple:
    vision = {**_siglip(), 'image_size': 56}
    del vision['model_type']
    return (name, _llama(vocab), vision,
            {'image_token_id': _image(words), 'scale_factor': 2, 'pad_token_id': 1})


def _idefics3(vocab: int, words: Any) -> tuple:
    return _smolvlm(vocab, words, 'Idefics3Config')


def _qwen_text(vocab: int) -> dict[str, Any]:
    return {'vocab_size': vocab, 'hidden_size': 32, 'intermediate_size': 64,
            'num_hidden_layers': 3, 'num_attention_heads': 4, 'num_key_value_heads': 2,
            'max_position_embeddings': 256, 'bos_token_id': 0, 'eos_token_id': 2,
            'pad_token_id': 1}


def _qwen25(vocab: int, words: Any) -> tuple:
    rope = {'type': 'mrope', 'rope_type': 'default', 'mrope_section': [1, 1, 2],
            'rope_theta': 1e4}
    return ('Qwen2_5_VLConfig', {**_qwen_text(vocab), 'rope_scaling': rope},
            {'depth': 2, 'hidden_size': 32, 'intermediate_size': 64, 'num_heads': 2,
             'patch_size': 14, 'out_hidden_size': 32, 'window_size': 56,
             'fullatt_block_indexes': [1]},
            {'image_token_id': _image(words, '<|image_pad|>'), 'video_token_id': vocab - 1,
             'vision_start_token_id': _image(words, '<|vision_start|>')})


def _qwen3(vocab: int, words: Any) -> tuple:
    rope = {'rope_type': 'default', 'mrope_section': [2, 1, 1], 'mrope_interleaved': True,
            'rope_theta': 1e4}
    return ('Qwen3VLConfig', {**_qwen_text(vocab), 'head_dim': 8, 'rope_scaling': rope},
            {'depth': 3, 'hidden_size': 32, 'intermediate_size': 64, 'num_heads': 2,
             'patch_size': 16, 'out_hidden_size': 32, 'num_position_embeddings': 16,
             'deepstack_visual_indexes': [0, 1]},
            {'image_token_id': _image(words, '<|image_pad|>'), 'video_token_id': vocab - 1,
             'vision_start_token_id': _image(words, '<|vision_start|>'),
             'vision_end_token_id': _image(words, '<|vision_end|>')})


def _florence2(vocab: int, words: Any) -> tuple:
    return ('Florence2Config',
            {'model_type': 'bart', 'vocab_size': vocab, 'd_model': 32, 'encoder_layers': 2,
             'decoder_layers': 2, 'encoder_ffn_dim': 64, 'decoder_ffn_dim': 64,
             'encoder_attention_heads': 4, 'decoder_attention_heads': 4, 'dropout': 0.0,
             'max_position_embeddings': 256, 'bos_token_id': 0, 'pad_token_id': 1,
             'eos_token_id': 2, 'decoder_start_token_id': 2},
            {'embed_dim': [8, 8, 16, 16], 'num_heads': [2, 2, 2, 2], 'num_groups': [2, 2, 2, 2],
             'depths': [1, 1, 1, 1], 'window_size': 2, 'projection_dim': 32,
             'max_position_embeddings': 8, 'drop_path_rate': 0.0},
            {'image_token_id': _image(words)})


_TINY = {'kosmos2': _kosmos2, 'paligemma': _paligemma, 'paligemma2': _paligemma2,
         'llava': _llava, 'smolvlm': _smolvlm, 'idefics3': _idefics3, 'qwen2_5_vl': _qwen25,
         'qwen3_vl': _qwen3, 'florence2': _florence2}
FAMILY_OF = {'paligemma2': 'paligemma', 'idefics3': 'smolvlm', 'qwen2_5_vl': 'qwen_vl',
             'qwen3_vl': 'qwen_vl'}
SIDE = {'smolvlm': 56, 'idefics3': 56, 'qwen2_5_vl': 56, 'qwen3_vl': 64, 'florence2': 64}
KINDS = tuple(_TINY)


def family(kind: str) -> str:
    """Return the backbone family of a kind."""
    return FAMILY_OF.get(kind, kind)


def side(kind: str) -> int:
    """Return the side of a tiny kind's images."""
    return SIDE.get(kind, 28)


if __name__ == '__main__':
    print(make(sys.argv[1], Path(sys.argv[2])), f'{side(sys.argv[1])}x{side(sys.argv[1])}')
