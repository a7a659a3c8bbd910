"""Configurations of tiny random models, one a family, each with the tokenizer it goes with."""

from pathlib import Path

import transformers as tf

PARITY = Path(__file__).parent / "parity"
SMALL = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96, "num_labels": 1}
# Wide weights, so that scores differ by far more than the tolerances they are compared with.
WIDE = {"initializer_range": 0.2}
WORDPIECE = {"vocab_size": 2000, "max_position_embeddings": 512}
SENTENCEPIECE = {"vocab_size": 3000, "max_position_embeddings": 514, "pad_token_id": 1, "eos_token_id": 2}


def configs():
    common = SMALL | WIDE
    modern = (
        common
        | WORDPIECE
        | {
            "pad_token_id": 0,
            "cls_token_id": 2,
            "sep_token_id": 3,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "local_attention": 16,
            "global_attn_every_n_layers": 2,
        }
    )
    return {
        "bert": (tf.BertConfig(**common, **WORDPIECE), "bert"),
        "electra": (tf.ElectraConfig(**common, **WORDPIECE, embedding_size=24), "bert"),
        "distilbert": (
            tf.DistilBertConfig(vocab_size=2000, dim=48, n_layers=3, n_heads=4, hidden_dim=96, num_labels=1, **WIDE),
            "bert",
        ),
        "xlm-roberta": (tf.XLMRobertaConfig(**common, **SENTENCEPIECE), "xlm-roberta"),
        "roberta": (tf.RobertaConfig(**common, **SENTENCEPIECE), "xlm-roberta"),
        "camembert": (tf.CamembertConfig(**common, **SENTENCEPIECE), "xlm-roberta"),
        "modernbert-cls": (tf.ModernBertConfig(**modern, classifier_pooling="cls"), "bert"),
        "modernbert-mean": (tf.ModernBertConfig(**modern, classifier_pooling="mean"), "bert"),
        "gte": (tf.GteConfig(**common, vocab_size=3000, max_position_embeddings=512, pad_token_id=1), "xlm-roberta"),
        "deberta-v2": (
            tf.DebertaV2Config(
                **common,
                **WORDPIECE,
                relative_attention=True,
                position_buckets=32,
                pos_att_type=["p2c", "c2p"],
                position_biased_input=False,
                norm_rel_ebd="layer_norm",
                share_att_key=True,
                pooler_hidden_size=48,
            ),
            "bert",
        ),
        "mpnet": (tf.MPNetConfig(**common, **SENTENCEPIECE), "xlm-roberta"),
        "eurobert": (tf.EuroBertConfig(**common, vocab_size=2000, max_position_embeddings=512, pad_token_id=0), "bert"),
    }


PACKED = (
    "bert", "electra", "distilbert", "xlm-roberta", "roberta", "camembert", "modernbert-cls", "modernbert-mean", "gte",
)  # fmt: skip
PADDED = ("deberta-v2", "mpnet")


def decoders():
    """Causal language models by name, for use with the Gemma tokenizer, and with it the arguments of its profile."""
    common = SMALL | WIDE | {"vocab_size": 2260, "max_position_embeddings": 2048, "num_key_value_heads": 2}
    common |= {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    del common["num_labels"]
    sizes = {"head_dim": 16}
    return {
        "gemma": tf.GemmaConfig(**common, **sizes),
        "gemma2": tf.Gemma2Config(
            **common, **sizes, sliding_window=24, attn_logit_softcapping=5.0, final_logit_softcapping=3.0,
            query_pre_attn_scalar=16,
        ),
        "llama": tf.LlamaConfig(**common, tie_word_embeddings=False),
        "llama-scaled": tf.LlamaConfig(
            **common, rope_parameters={"rope_type": "llama3", "rope_theta": 1000.0, "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
        ),
        "mistral": tf.MistralConfig(**common, sliding_window=24),
        "qwen2": tf.Qwen2Config(**common, tie_word_embeddings=False),
        "qwen3": tf.Qwen3Config(**common, **sizes, tie_word_embeddings=True),
        "granite": tf.GraniteConfig(
            **common, logits_scaling=4.0, embedding_multiplier=3.0, residual_multiplier=0.5, attention_multiplier=0.2
        ),
        "phi": tf.PhiConfig(**(common | {"num_key_value_heads": 4})),
        "cohere": tf.CohereConfig(**common, logit_scale=0.5),
        "olmo2": tf.Olmo2Config(**common),
        "gemma3": tf.Gemma3TextConfig(**common, **sizes, sliding_window=24, query_pre_attn_scalar=16),
        "gpt2": tf.GPT2Config(
            vocab_size=2260, n_positions=2048, n_embd=48, n_layer=3, n_head=4, initializer_range=0.2,
            bos_token_id=2, eos_token_id=1, pad_token_id=0,
        ),
    }  # fmt: skip
