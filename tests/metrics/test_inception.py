"""The Inception extractor on random weights in the right shape: the published weights are a download of 96 MB."""

from __future__ import annotations

import hashlib
import io
import pickle
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

from coldtune.metrics import build_extractor, extract_features
from coldtune.metrics.inception import SHA256, VARIABLE, load_inception, weights_file

NAME = "weights.pth"
CONTENT = bytes(range(256)) * 4000
HASH = hashlib.sha256(CONTENT).hexdigest()


class _Blank(FeatureExtractorInceptionV3):
    def load_state_dict(self, state: object, *args: object) -> None:
        """Leave the weights as they were initialised."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    torch.manual_seed(0)
    network = _Blank("random", ["2048"], feature_extractor_weights_path=empty)
    for parameter in network.parameters():
        if parameter.ndim == 4:  # torch's default shrinks the features to 0 over so many layers
            torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu")
    path = tmp_path_factory.mktemp("inception") / NAME
    torch.save(network.state_dict(), path)
    return path


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _images(n: int, channels: int, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, channels, size, size), generator=generator, dtype=torch.uint8)


def test_inception_features_equal_torch_fidelity(weights: Path) -> None:
    extractor = load_inception(weights, _hash(weights))
    theirs = FeatureExtractorInceptionV3("theirs", ["2048"], feature_extractor_weights_path=str(weights))
    images = _images(4, 3)
    expected = theirs(images)[0].double()
    assert float(expected.std()) > 0.01, "the random network has features to compare"
    torch.testing.assert_close(extractor(images), expected, rtol=1e-6, atol=1e-6)
    # float32 convolutions round by the size of the batch
    torch.testing.assert_close(extract_features(extractor, images.flip(0), 1).flip(0), expected, rtol=1e-4, atol=1e-4)
    assert (extractor.name, extractor.dim, extractor.sha256) == ("inception", 2048, _hash(weights))


def test_inception_one_channel_equals_three_grey_channels(weights: Path) -> None:
    extractor, grey = load_inception(weights, _hash(weights)), _images(2, 1, size=28)
    torch.testing.assert_close(extractor(grey), extractor(grey.repeat(1, 3, 1, 1)), rtol=0, atol=0)
    with pytest.raises(ValueError, match="images of 2 channels: inception takes 1 or 3"):
        extractor(_images(2, 2))


def test_inception_other_weights_are_refused_by_hash(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(weights))
    with pytest.raises(ValueError, match=rf"weights\.pth has SHA-256 {_hash(weights)}, published is {SHA256}"):
        build_extractor("inception")
    assert f"-{SHA256[:8]}.pth" in URL_INCEPTION_V3


def test_inception_file_with_code_is_refused_despite_right_hash(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    torch.save({"fc.bias": Runs()}, tmp_path / NAME)
    with pytest.raises(pickle.UnpicklingError):
        load_inception(tmp_path / NAME, _hash(tmp_path / NAME))
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a server and the requested paths. Below /cut/ it announces all bytes and sends half."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404 if self.path.startswith("/absent/") else 200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            if not self.path.startswith("/absent/"):
                self.wfile.write(CONTENT[: len(CONTENT) // 2] if self.path.startswith("/cut/") else CONTENT)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", asked
        http.shutdown()
        thread.join()


def test_weights_file_is_downloaded_once(server: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = server
    for _ in range(2):
        path = weights_file(None, tmp_path, f"{address}/{NAME}", HASH)
        assert path == tmp_path / NAME
        assert path.read_bytes() == CONTENT
    assert asked == [f"/{NAME}"]
    path.write_bytes(CONTENT[:-1])
    assert weights_file(None, tmp_path, f"{address}/{NAME}", HASH).read_bytes() == CONTENT
    assert len(asked) == 2


@pytest.mark.parametrize(("place", "reason"), [("cut", "sha256 is"), ("absent", "HTTP Error 404")])
def test_weights_file_failed_download_leaves_no_file(
    server: tuple[str, list[str]], tmp_path: Path, place: str, reason: str
) -> None:
    address = f"{server[0]}/{place}/{NAME}"
    with pytest.raises(ValueError, match=reason):
        weights_file(None, tmp_path, address, HASH)
    assert not [path for path in tmp_path.iterdir() if NAME in path.name and path.suffix != ".lock"]


def test_weights_file_offline_names_ways_out(tmp_path: Path) -> None:
    address = f"http://127.0.0.1:9/{NAME}"
    with pytest.raises(ValueError, match="could not be downloaded") as failure:
        weights_file(None, tmp_path / "hub", address, HASH)
    for part in (address, HASH, str(tmp_path / "hub"), VARIABLE, "digits, mnist"):
        assert part in str(failure.value)


def test_weights_file_named_file_needs_no_download(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"1")
    assert weights_file(str(tmp_path / "mine"), tmp_path, "http://127.0.0.1:9/x", HASH) == tmp_path / "mine"
    with pytest.raises(ValueError, match=rf"{VARIABLE} = '.*/absent': no such file; allowed is the file published at"):
        weights_file(str(tmp_path / "absent"), tmp_path, "http://127.0.0.1:9/x", HASH)
