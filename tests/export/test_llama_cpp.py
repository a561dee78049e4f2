"""llama.cpp asked through its server: what is made of the answer, and what fails."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

import clas_lens as cl
from clas_lens.export import llama_cpp
from clas_lens.export.parity import Reference


@pytest.fixture
def server():
    """One that answers as llama.cpp's does, out of order, and keeps what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            tops = [{"id": token, "logprob": value} for token, value in ((2, -1.0), (0, -0.5), (1, -3.0))]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"completion_probabilities": [{"top_logprobs": tops}]}).encode())

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}", asked
        found.shutdown()


def test_the_whole_distribution_in_the_order_of_tokens(server):
    address, asked = server
    found = llama_cpp.next_token(address, [5, 6], lora_scale=0.5)
    torch.testing.assert_close(found, torch.tensor([-0.5, -3.0, -1.0]).double().log_softmax(0), check_dtype=False)
    assert asked[0]["prompt"] == [5, 6]
    assert asked[0]["lora"] == [{"id": 0, "scale": 0.5}]


@pytest.mark.parametrize("follows", [True, False])
def test_llama_cpp_must_steer_too(follows, monkeypatch, tmp_path):
    generator = torch.Generator().manual_seed(0)
    base, steered = (torch.randn(3, 7, generator=generator) for _ in range(2))
    answers = {"plain": base[-1], "steered": steered[-1] if follows else base[-1]}

    from contextlib import nullcontext

    monkeypatch.setattr(llama_cpp, "llama_server", lambda file: nullcontext(file.name))
    monkeypatch.setattr(llama_cpp, "next_token", lambda address, tokens: answers[address].double())
    reference = Reference("de", [torch.tensor([1, 2, 3])], [base], [steered])
    if follows:
        found = llama_cpp.compared_with_llama_cpp(tmp_path / "plain", tmp_path / "steered", reference)
        assert found["llama_cpp_from_hooks_steered"] < 1e-6
        assert found["llama_cpp_kl_steering"] == found["hooks_kl_steering"]
    else:
        with pytest.raises(cl.ExportError, match="differs from steer in llama.cpp"):
            llama_cpp.compared_with_llama_cpp(tmp_path / "plain", tmp_path / "steered", reference)
