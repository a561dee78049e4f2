"""Prompts per language, versioned: a change of wording is a new version."""

from typing import Any

from transformers import PreTrainedTokenizerBase

from clas_lens.corpus import BundledItem
from clas_lens.presets import PRESETS

QA_PROMPT_VERSION = "qa-v1"

# "Question" and "Answer", as a form would print them.
QA_CUES: dict[str, tuple[str, str]] = {
    "ar": ("سؤال", "جواب"),
    "bg": ("Въпрос", "Отговор"),
    "de": ("Frage", "Antwort"),
    "el": ("Ερώτηση", "Απάντηση"),
    "en": ("Question", "Answer"),
    "es": ("Pregunta", "Respuesta"),
    "fr": ("Question", "Réponse"),
    "hi": ("प्रश्न", "उत्तर"),
    "ro": ("Întrebare", "Răspuns"),
    "ru": ("Вопрос", "Ответ"),
    "sw": ("Swali", "Jibu"),
    "th": ("คำถาม", "คำตอบ"),
    "tr": ("Soru", "Cevap"),
    "ur": ("سوال", "جواب"),
    "vi": ("Câu hỏi", "Trả lời"),
    "zh": ("问题", "答案"),
}


def qa_prompt(tokenizer: PreTrainedTokenizerBase, model_name: str, item: BundledItem, language: str) -> str | list[int]:
    """The passage, the question and the answer cue in the example's language.

    Plain text for a base model; token ids of its chat template (with its one BOS) for an instruct model.
    """
    question, answer = QA_CUES[language]
    text = f"{item.passage}\n\n{question}: {item.question}\n{answer}:"
    if not uses_chat_template(tokenizer, model_name):
        return text
    ids: Any = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
    )
    return [int(token) for token in ids]


def uses_chat_template(tokenizer: PreTrainedTokenizerBase, model_name: str) -> bool:
    """Whether to prompt this model as a chat: as its preset says, otherwise if its tokenizer has a template."""
    for name, preset in PRESETS.items():
        if model_name in (name, preset.hub_id, preset.hub_id.split("/")[-1]):
            return preset.prompt_style == "chat"
    return bool(tokenizer.chat_template)
