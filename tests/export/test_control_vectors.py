"""Control vectors: written as repeng writes them, and read from its files and objects and from steering-vectors'."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

import clas_lens as cl

gguf = pytest.importorskip("gguf")


@pytest.fixture
def vector():
    values = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    return cl.AddVector(values, ("de", "sw"), 3, 1.5, model={"name": "tiny"})


def test_there_and_back(vector, tmp_path, llama, probes):
    out = cl.export.control_vector(vector, language="sw", out=tmp_path / "vector.gguf", model_hint="llama")
    reader = gguf.GGUFReader(out)
    assert reader.fields["general.architecture"].contents() == "controlvector"
    assert reader.fields["controlvector.model_hint"].contents() == "llama"
    assert reader.fields["controlvector.layer_count"].contents() == 1
    (tensor,) = reader.tensors
    assert tensor.name == "direction.3"
    np.testing.assert_allclose(tensor.data, 1.5 * vector.values[1].numpy(), rtol=1e-6)
    back = cl.export.read_control_vector(out, language="sw")
    assert (back.layer, back.alpha, back.languages) == (3, 1.0, ("sw",))
    mask = torch.ones_like(probes)
    bare = cl.AddVector(vector.values, vector.languages, 3, 1.5)
    with torch.no_grad():
        with cl.steer(llama, bare, language="sw"):
            wanted = llama(probes, attention_mask=mask)
        with cl.steer(llama, back, language="sw"):
            torch.testing.assert_close(llama(probes, attention_mask=mask), wanted, atol=1e-5, rtol=1e-5)


def test_repeng_s_own_export(tmp_path):
    """The lines of repeng's `ControlVector.export_gguf`."""
    file = tmp_path / "repeng.gguf"
    directions = {layer: np.full(32, layer, np.float32) for layer in (5, 6, 7)}
    writer = gguf.GGUFWriter(file, "controlvector")
    writer.add_string("controlvector.model_hint", "mistral")
    writer.add_uint32("controlvector.layer_count", len(directions))
    for layer, direction in directions.items():
        writer.add_tensor(f"direction.{layer}", direction)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = cl.export.read_control_vector(file, language="de", layer=6, alpha=2.0)
    assert torch.equal(found.of("de"), torch.full((32,), 6.0))
    with pytest.raises(cl.ExportError, match=r"layers 5, 6, 7: name one with layer="):
        cl.export.read_control_vector(file, language="de")
    with pytest.raises(cl.ExportError, match=r"none is for layer 2"):
        cl.export.read_control_vector(file, language="de", layer=2)


@dataclass
class SteeringVector:
    """What steering-vectors' class holds."""

    layer_activations: dict
    layer_type: str = "decoder_block"


@dataclass
class ControlVector:
    """What repeng's class holds."""

    model_type: str
    directions: dict


def test_objects_and_tensor_files(tmp_path):
    held = {4: torch.arange(32.0)}
    torch.save(held, tmp_path / "vector.pt")
    sources = [SteeringVector(held), ControlVector("llama", {4: held[4].numpy()}), held, tmp_path / "vector.pt"]
    for source in sources:
        found = cl.export.read_control_vector(source, language="de")
        assert found.layer == 4
        assert torch.equal(found.of("de"), held[4])
    torch.save(SteeringVector(held), tmp_path / "pickled.pt")
    with pytest.raises(cl.ExportError, match="holds objects, which would run code"):
        cl.export.read_control_vector(tmp_path / "pickled.pt", language="de")


def test_refusals(vector, masks, tmp_path):
    from dataclasses import replace

    for intervention, language, message in [
        (masks, "de", "RescaleMasks adds none"),
        (vector, "en", "it is the anchor"),
        (replace(vector, positions="last"), "de", "positions='last'"),
        (replace(vector, layer=0), "de", r"from its second block"),
        (replace(vector, alpha=0.0), "de", "alpha is 0"),
        (vector, "fr", "nothing for 'fr'"),
    ]:
        with pytest.raises(ValueError, match=message):
            cl.export.control_vector(intervention, language=language, out=tmp_path / "out.gguf")
    assert not list(tmp_path.iterdir())
