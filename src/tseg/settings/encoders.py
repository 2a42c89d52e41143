"""The encoders of a run, by the keys that describe them in the configuration."""

import hashlib

from tseg.settings.run_schema import RunSettings
from tseg.settings.schema import ImageEncoderSettings, LanguageModelSettings, Settings, StrictModel


class UsedEncoders(StrictModel):
    """The encoders of a run and the resolution that it trains them at. Many runs have the same."""

    image_key: str
    """Such as image_encoders.vit; with the name of the run if a table varies it."""
    image_encoder: ImageEncoderSettings
    text_key: str
    """language_model; with the name of the run if a table varies it."""
    language_model: LanguageModelSettings | None
    """None: the run encodes classes, which has no settings that could be wrong."""
    resolution_key: str
    """Such as training.weak.resolution."""
    resolution: int
    """Pixels."""

    @property
    def name(self) -> str:
        """A short name, the same for equal encoders."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


def used_encoders(settings: Settings, run: RunSettings) -> UsedEncoders:
    """Return the encoders of `run`, which varies `settings`."""
    text = run.model.text_encoder
    language_model = text if isinstance(text, LanguageModelSettings) else None
    unvaried = language_model in (None, settings.language_model.as_used())
    return UsedEncoders(
        image_key=_image_key(settings, run),
        image_encoder=run.model.image_encoder,
        text_key="language_model" if unvaried else f"{run.run}: language_model",
        language_model=language_model,
        resolution_key=f"training.{run.supervision}.resolution",
        resolution=run.training.resolution,
    )


def _image_key(settings: Settings, run: RunSettings) -> str:
    """The key of a run's image encoder, or of the one that it varies; then with the name of the run."""
    encoders, own = settings.image_encoders, run.model.image_encoder
    same = [name for name, encoder in encoders.items() if encoder == own]
    if same:
        return f"image_encoders.{same[0]}"
    varied = [name for name, encoder in encoders.items() if encoder.name == own.name]
    return f"{run.run}: {'.'.join(['image_encoders', *varied[:1]])}"
