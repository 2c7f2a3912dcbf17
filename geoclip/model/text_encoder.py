"""CLIP's text tower, for text queries."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from geoclip.errors import AssetError, first_line
from geoclip.model.backbones import pretrained
from geoclip.model.hub import no_connection

log = logging.getLogger("geoclip")


class TextEncoder(nn.Module):
    """Tokenizer, CLIP's text tower and its projection into the space of CLIP's image features.

    GeoCLIP's image MLP accepts both: `model.encode_features(text_encoder.encode(…))`.

    Source: GeoCLIP, NeurIPS 2023, section 4: geo-localisation from text queries.
    """

    def __init__(self, text_model: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        self.text_model, self.tokenizer = text_model, tokenizer
        settings: Any = text_model.config
        self.longest = int(settings.max_position_embeddings)  # tokens
        self.vocabulary = int(settings.vocab_size)

    @classmethod
    def from_pretrained(cls, repo: str) -> TextEncoder:
        """Tower and tokenizer from the Hub id or local folder `repo`, in evaluation mode.

        Raises:
            AssetError: neither a local folder nor reachable, or without a tokenizer.
            GeoclipError: not a CLIP.
        """
        tower = pretrained("CLIPTextModelWithProjection", repo, "clip")
        from transformers import AutoTokenizer

        try:
            encoder = cls(tower, AutoTokenizer.from_pretrained(repo, local_files_only=bool(no_connection()))).eval()
            if len(encoder.tokenizer) < encoder.vocabulary:  # without files, transformers makes an empty tokenizer
                raise ValueError(f"{len(encoder.tokenizer)} tokens, but the text tower has {encoder.vocabulary}")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AssetError(
                f"{repo!r} has no tokenizer ({first_line(error)}); text queries need tokenizer.json, or vocab.json and "
                "merges.txt, beside the weights"
            ) from error
        return encoder

    @torch.inference_mode()
    def encode(self, texts: list[str]) -> Tensor:
        """(N, F) projected features of the texts, not normalised; texts that are too long are cut, with a warning."""
        for text, tokens in zip(texts, self.tokenizer(texts)["input_ids"], strict=True):
            if len(tokens) > self.longest:
                log.warning("%r has %d tokens; the first %d are used", text, len(tokens), self.longest)
        batch = self.tokenizer(texts, padding=True, truncation=True, max_length=self.longest, return_tensors="pt")
        device = next(self.text_model.parameters()).device
        out: Tensor = self.text_model(
            input_ids=batch["input_ids"].to(device), attention_mask=batch["attention_mask"].to(device)
        ).text_embeds
        return out
