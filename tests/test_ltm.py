"""LTM's arithmetic: decoder, fast loop, what weights learn and bounds, each beside a plain one."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workbench.checks import check
from workbench.methods.ltm import Decoder, Gaussian, Loop, Noise, Shape, floor
from workbench.methods.ltm.bounds import active
from workbench.methods.ltm.config import PRESETS, LTMConfig
from workbench.methods.ltm.decoder import NONE
from workbench.methods.ltm.inference import begun, prior_log_density, rates, reaches
from workbench.methods.ltm.learning import Text, found_for, gradients_of, known

SHAPE = Shape(vocabulary=11, width=8, layers=2, heads=2, window=3, latents=4, length=12, hidden=12)
FILE = "tests/data/ltm.safetensors"


def made(shape: Shape = SHAPE, seed: int = 0) -> Decoder:
    """A decoder in float64 with weights of a size at which everything matters."""
    torch.manual_seed(seed)
    decoder = Decoder(shape).double()
    with torch.no_grad():
        for p in decoder.parameters():
            p.copy_(torch.randn_like(p) * (0.4 if p.ndim == 2 else 0.2) + (p.ndim == 1))
    return decoder


def text(count: int = 12, rows: int = 3, shape: Shape = SHAPE) -> Text:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(shape.vocabulary, (rows, count + 1), generator=generator)
    targets = tokens[:, 1:].clone()
    targets[0, -2:] = NONE
    return Text(tokens[:, :-1], targets, None)


def z_of(rows: int = 3, shape: Shape = SHAPE) -> Tensor:
    return torch.randn(
        rows, shape.latents, shape.width, dtype=torch.float64, generator=torch.Generator().manual_seed(2)
    )


# ------------------------------------------------------------------------------------------------------- the decoder


def plain_logits(decoder: Decoder, tokens: Tensor, z: Tensor) -> Tensor:
    """One text, place by place, from the formula alone."""
    shape, w = decoder.shape, {name.removesuffix(".weight"): p for name, p in decoder.named_parameters()}
    size = shape.width // shape.heads

    def norm(x: Tensor, g: Tensor) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * g

    def turn(x: Tensor, place: float) -> Tensor:
        out = x.clone()
        for k in range(size // 2):
            angle = place * 10000 ** (-2 * k / size)
            a, b = x[2 * k], x[2 * k + 1]
            out = out.index_copy(0, torch.tensor([2 * k, 2 * k + 1]), torch.stack(
                [a * math.cos(angle) - b * math.sin(angle), a * math.sin(angle) + b * math.cos(angle)]
            ))  # fmt: skip
        return out

    def attended(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        out = []
        for head in range(shape.heads):
            own = slice(head * size, (head + 1) * size)
            scores = torch.stack([query[own] @ k[own] for k in keys]) / size**0.5
            out.append(scores.softmax(0) @ torch.stack([v[own] for v in values]))
        return torch.cat(out)

    def turned(x: Tensor, place: float) -> Tensor:
        return torch.cat([turn(x[k * size : (k + 1) * size], place) for k in range(shape.heads)])

    h = w["embedding"][tokens]
    for index in range(shape.layers):
        one = {name.removeprefix(f"layers.{index}."): p for name, p in w.items() if name.startswith(f"layers.{index}.")}
        x = norm(h, one["self_norm"])
        queries = [turned(one["self.q"] @ x[i], i) for i in range(len(x))]
        keys = [turned(one["self.k"] @ x[i], i) for i in range(len(x))]
        values = [one["self.v"] @ x[i] for i in range(len(x))]
        first = [max(0, i - shape.window + 1) for i in range(len(x))]
        h = h + torch.stack(
            [
                one["self.o"] @ attended(queries[i], keys[first[i] : i + 1], values[first[i] : i + 1])
                for i in range(len(x))
            ]
        )
        x, own = norm(h, one["cross_norm"]), z[index * shape.each : (index + 1) * shape.each]
        keys = [turned(one["cross.k"] @ own[k], k * shape.length / shape.each) for k in range(shape.each)]
        values = [one["cross.v"] @ own[k] for k in range(shape.each)]
        h = h + torch.stack(
            [one["cross.o"] @ attended(turned(one["cross.q"] @ x[i], i), keys, values) for i in range(len(x))]
        )
        x = norm(h, one["mlp_norm"])
        h = h + (F.silu(x @ one["gate"].T) * (x @ one["up"].T)) @ one["down"].T
    return norm(h, w["norm"]) @ w["embedding"].T


@pytest.mark.parametrize("chunked", [True, False])
def test_the_decoder_is_its_formula(chunked, monkeypatch):
    monkeypatch.setattr("workbench.methods.ltm.decoder.SHORT", 1)
    decoder, own, z = made(), text(), z_of()
    reading = decoder.read(decoder.embedding(own.tokens), chunked=chunked)
    assert reading.chunked == chunked
    found = decoder.logits(decoder.states(reading, z))
    plain = torch.stack([plain_logits(decoder, tokens, one) for tokens, one in zip(own.tokens, z, strict=True)])
    torch.testing.assert_close(found, plain)
    nll = F.cross_entropy(plain.transpose(1, 2), own.targets, ignore_index=NONE, reduction="none").sum(1)
    for whole in (True, False):
        torch.testing.assert_close(
            decoder.nll(decoder.states(reading, z), own.targets, whole=whole),
            nll,
            check_dtype=False,
            rtol=1e-6,
            atol=1e-6,
        )
    weights = dict(decoder.named_parameters())
    ours, theirs = (torch.autograd.grad(one.square().sum(), list(weights.values())) for one in (found, plain))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_padding_on_either_side_changes_nothing(monkeypatch):
    monkeypatch.setattr("workbench.methods.ltm.decoder.SHORT", 1)
    decoder, own, z = made(), text(9, 1), z_of(1)
    alone = decoder.states(own.read(decoder), z)
    embeds = F.pad(decoder.embedding(own.tokens), (0, 0, 4, 3), value=5.0)
    there = F.pad(torch.ones(1, 9, dtype=torch.bool), (4, 3))
    for chunked in (True, False):
        found = decoder.states(decoder.read(embeds, there, chunked=chunked), z)
        assert torch.isfinite(found).all()
        torch.testing.assert_close(found[:, 4:-3], alone)


def test_who_reads_what():
    decoder, own, z = made(), text(12, 1), z_of(1)

    def logits(tokens: Tensor, z: Tensor) -> Tensor:
        return decoder.logits(decoder.states(decoder.read(decoder.embedding(tokens)), z))[0]

    before = logits(own.tokens, z)
    other = own.tokens.clone()
    other[0, 4] = (other[0, 4] + 1) % 11
    moved = (logits(other, z) != before).any(-1).tolist()
    field = 2 * (SHAPE.window - 1)  # two layers
    assert moved == [False] * 4 + [True] * (field + 1) + [False] * (12 - 4 - field - 1)
    for layer in range(2):
        pushed = z.clone()
        pushed[:, 2 * layer : 2 * layer + 2] += 1
        assert (logits(own.tokens, pushed) != before).any(-1).all()
        # what is another layer's does not reach this one's attention
        pairs, others = decoder.latent_pairs(z), decoder.latent_pairs(pushed)
        assert [torch.equal(a[0], b[0]) for a, b in zip(pairs, others, strict=True)] == [layer != 0, layer != 1]
    torch.testing.assert_close(logits(own.tokens, 0 * z), decoder.logits(decoder.states(own.read(decoder), None))[0])


def test_sizes_are_the_papers():
    sizes = {layers: Shape(50258, 512, layers, 8, 256, 24, 1024) for layers in (3, 6, 12)}
    assert [one.parameters for one in sizes.values()] == [38_369_280, 51_005_952, 76_279_296]
    flops = [sizes[layers].training_flops(steps) / 1e9 for layers, steps in ((3, 16), (6, 16), (12, 64))]
    assert [round(one, 3) for one in flops] == [4.074, 5.523, 32.203]
    assert Shape(258, 768).inner == 2048
    assert SHAPE.parameters == sum(p.numel() for p in made().parameters())


def test_what_starts_smaller():
    shape = Shape(50, 64, 4, 4, latents=8)
    wide = {name: p.detach().std().item() for name, p in Decoder(shape).named_parameters() if p.ndim == 2}
    assert wide["layers.0.up.weight"] == pytest.approx(0.02, rel=0.05)
    for name in ("self.o", "cross.o", "down"):
        assert wide[f"layers.0.{name}.weight"] == pytest.approx(0.02 / 12**0.5, rel=0.05)
    released = {
        name: p.detach().std().item() for name, p in Decoder(shape, "reference").named_parameters() if p.ndim == 2
    }
    assert released["layers.0.up.weight"] == pytest.approx(0.02 / 8**0.5, rel=0.05)
    assert released["layers.0.down.weight"] == pytest.approx(0.02, rel=0.05)


def test_a_decoder_is_saved_and_loaded_strictly(tmp_path):
    decoder = made().float()
    again = Decoder.load(decoder.save(tmp_path))
    assert again.shape == decoder.shape
    assert all(torch.equal(p, q) for p, q in zip(decoder.parameters(), again.parameters(), strict=True))
    weights = {name: p.detach() for name, p in decoder.named_parameters()}
    with pytest.raises(ValueError, match=r"lacks layers\.1\.up\.weight"):
        again.take({name: p for name, p in weights.items() if name != "layers.1.up.weight"}, "it")
    with pytest.raises(ValueError, match="should not have more"):
        again.take({**weights, "more": torch.zeros(1)}, "it")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="holds another kind of model"):
        Decoder.load(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"width": 12}, "does not divide into 4 heads"), ({"latents": 3}, "do not divide into 2 layers")],
)
def test_sizes_that_do_not_fit_are_said(wrong, said):
    with pytest.raises(ValueError, match=said):
        Shape(vocabulary=10, **wrong)


# ------------------------------------------------------------------------------------------------------ the fast loop


def drawn(count: int, shape: Shape = SHAPE) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(3, shape.latents, shape.width, dtype=torch.float64, generator=generator) for _ in range(count)]


def start() -> Gaussian:
    mu, spread = drawn(2)
    return Gaussian(0.1 * mu, -2 + 0.1 * spread)


@pytest.mark.parametrize(("shared", "decay"), [(False, 0.0), (True, 0.01)])
def test_the_fast_loop_is_adam_on_the_bound(shared, decay):
    """Beside torch's own AdamW and autograd on the whole bound; and the weights' gradients along it."""
    decoder, own, noise = made(), text(), drawn(5)
    mu, log_var = (value.clone().requires_grad_() for value in (start().mu, start().log_var))
    slow, weights = [rates(5, 0.3, "cosine"), rates(5, 0.3)][decay == 0], list(decoder.parameters())
    total = [torch.zeros_like(p) for p in weights]
    optimizer, plain = torch.optim.AdamW([mu, log_var], weight_decay=decay), []
    for step, rate in enumerate(slow):
        optimizer.param_groups[0]["lr"] = rate
        z = mu + (log_var / 2).exp() * noise[0 if shared else step]
        nll = decoder.nll(decoder.states(own.read(decoder, plain=True), z), own.targets, whole=True)
        kl = 0.5 * (mu**2 + log_var.exp() - 1 - log_var).sum((1, 2))
        for kept, g in zip(total, torch.autograd.grad(nll.sum(), weights, retain_graph=True), strict=True):
            kept += g
        optimizer.zero_grad()
        mu.grad, log_var.grad = torch.autograd.grad((nll + kl).sum(), [mu, log_var])
        optimizer.step()
        plain.append(nll.detach())
    loop = Loop(slow, decay=decay, shared=shared, clamp=None)
    for found in (
        found_for(decoder, own, start(), iter(noise).__next__, loop),
        found_for(decoder, own, start(), iter(noise).__next__, loop, plain=True),
        gradients_of(decoder, own, weights, start(), iter(noise).__next__, loop, plain=True),
        gradients_of(decoder, own, weights, start(), iter(noise).__next__, loop),
    ):
        torch.testing.assert_close(found.posterior.mu, mu.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.posterior.log_var, log_var.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found.nll, torch.stack(plain), rtol=1e-5, atol=1e-5, check_dtype=False)
        if found.gradients:
            for ours, theirs in zip(found.gradients, total, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert all(p.grad is None for p in weights)


def test_the_kl_is_torchs():
    q = start()
    own = torch.distributions.Normal(q.mu, (q.log_var / 2).exp())
    prior = torch.distributions.Normal(torch.zeros_like(q.mu), torch.ones_like(q.mu))
    torch.testing.assert_close(q.kl(), torch.distributions.kl_divergence(own, prior).sum(-1))
    z = q.at(drawn(1)[0])
    torch.testing.assert_close(q.log_density(z), own.log_prob(z).sum((1, 2)))
    torch.testing.assert_close(prior_log_density(z), prior.log_prob(z).sum((1, 2)))


def test_several_noises_of_a_step_are_averaged():
    decoder, own, noise = made(), text(), drawn(2)
    loop = Loop([0.3], samples=2, clamp=None)
    found = gradients_of(decoder, own, list(decoder.parameters()), start(), iter(noise).__next__, loop)
    parts = [
        gradients_of(decoder, own, list(decoder.parameters()), start(), lambda one=one: one, replace(loop, samples=1))
        for one in noise
    ]
    torch.testing.assert_close(found.nll, (parts[0].nll + parts[1].nll) / 2)
    for both, a, b in zip(found.gradients, parts[0].gradients, parts[1].gradients, strict=True):
        torch.testing.assert_close(both, (a + b) / 2)


def test_batch_mates_change_no_posterior():
    decoder, own = made(), text()
    like = decoder.embedding.weight

    def fitted(rows: list[int]) -> Gaussian:
        chosen = Text(own.tokens[rows], own.targets[rows], None)
        noise = Noise([10 + k for k in rows], SHAPE.latents, SHAPE.width, like)
        return found_for(decoder, chosen, begun(noise, -5.0), noise, Loop(rates(16, 0.3125))).posterior

    together = fitted([0, 1, 2])
    for k in range(3):
        alone = fitted([k])
        torch.testing.assert_close(together.mu[k], alone.mu[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together.log_var[k], alone.log_var[0], atol=1e-5, rtol=1e-4)


def test_no_steps_give_the_start_and_texts_of_nothing_a_finite_bound():
    decoder, own = made(), text()
    found = found_for(decoder, own, start(), iter(()).__next__, Loop([]))
    assert torch.equal(found.posterior.mu, start().mu)
    silent = Text(own.tokens, torch.full_like(own.targets, NONE), None)
    found = found_for(decoder, silent, start(), iter(drawn(2)).__next__, Loop([0.3, 0.3]))
    assert (found.nll == 0).all()
    assert torch.isfinite(found.posterior.mu).all()


# What the released code's loop, with its decay of 0.01, leaves of the KL where there is nothing to learn: (steps, rate,
# schedule, KL per dimension, mean log-variance).
FLOORS = [
    (0, 0.3, "constant", 2.003, -5.00), (8, 0.30, "constant", 0.802, -2.51), (16, 0.30, "constant", 0.0139, -0.18),
    (16, 0.3125, "constant", 0.0070, -0.01), (16, 0.34, "constant", 0.0397, 0.34), (16, 0.40, "constant", 0.231, 0.81),
    (16, 0.34, "cosine", 0.468, -1.76), (32, 0.30, "constant", 0.0111, -0.21), (32, 0.34, "cosine", 0.0316, 0.33),
    (64, 0.34, "cosine", 0.0, 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("steps", "rate", "schedule", "kl", "log_var"), FLOORS)
def test_the_floor_is_what_the_loop_leaves(steps, rate, schedule, kl, log_var):
    found = floor(Loop(rates(steps, rate, schedule), decay=0.01), -5.0)
    assert found.kl == pytest.approx(kl, rel=0.02, abs=3e-4)
    assert found.log_var == pytest.approx(log_var, abs=0.01)


def test_without_decay_the_floor_of_sixteen_steps_is_a_little_higher():
    loop = Loop(rates(16, 0.3125))
    assert floor(loop, -5.0).kl == pytest.approx(0.0108, abs=5e-4)
    assert reaches(loop, -5.0)
    assert not reaches(Loop(rates(16, 0.34, "cosine")), -5.0)
    assert reaches(Loop(rates(64, 0.34, "cosine")), -5.0)


def test_active_dimensions_differ_between_texts():
    mu = torch.zeros(4, 2, 3)
    mu[:, 1, 2] = torch.tensor([-1.0, 1.0, -1.0, 1.0])
    assert active(Gaussian(mu, mu)) == 1


def test_known_gradients_are_handed_on():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    (2 * known(torch.tensor(5.0), [torch.tensor([3.0, 4.0])], [weight])).backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [6.0, 8.0]


# --------------------------------------------------------------------------------------------------------- its settings


def test_presets_are_whose_they_say():
    paper, code = PRESETS["paper"], PRESETS["reference-code"]
    assert (paper.noise, paper.slow_grad, paper.inner_decay) == ("fresh", "final", 0.0)
    assert paper.training_loop(0).rates == [0.30] * 16
    assert paper.training_loop(60000).rates[0] == pytest.approx(0.34)
    assert (code.noise, code.slow_grad, code.inner_decay) == ("shared", "trajectory", 0.01)
    first = code.training_loop(0)
    assert first.shared
    assert first.rates[0] == pytest.approx(0.34)
    assert first.rates[-1] < 0.05
    assert len(PRESETS["paper-l"].training_loop(0).rates) == 64
    assert PRESETS["paper-l"].training_loop(0).rates[-1] < 0.1  # 64 steps fall


def test_the_kl_is_held_and_ramped():
    config = LTMConfig(kl_hold=10, kl_ramp=20)
    assert [config.kl_weight(step) for step in (0, 9, 10, 20, 30, 99)] == [0, 0, 0, 0.5, 1, 1]
    assert LTMConfig().kl_weight(0) == 1


def test_our_numbers_are_those_of_the_published_code(tmp_path):
    from safetensors.torch import load_file, save_file

    found = check("ltm", FILE)
    assert found.complaint is None
    assert len(found.max_abs) == 110
    tensors = load_file(FILE)
    tensors["layers.1.cross.v"] = tensors["layers.1.cross.v"] * 1.01
    save_file(tensors, tmp_path / "other.safetensors", metadata={"kind": "ltm"})
    assert check("ltm", tmp_path / "other.safetensors").complaint is not None
    del tensors["layers.1.cross.v"]
    save_file(tensors, tmp_path / "less.safetensors", metadata={"kind": "ltm"})
    with pytest.raises(ValueError, match=r"lacks layers\.1\.cross\.v"):
        check("ltm", tmp_path / "less.safetensors")


def test_the_plainly_written_step_that_speed_is_measured_against_finds_the_same():
    from workbench.bench.fast_loop import STEPS, Batch, flops, inner_steps

    batch = Batch(texts=2, tokens=10, width=16, heads=2, window=4, latents=4, vocabulary=20)
    found = inner_steps(batch, repeats=1, timer="cpu")
    assert found["largest_difference"] < 1e-3
    assert set(found["rungs"]) == {"reference", "shortcuts", "trajectory"}
    row = found["rungs"]["shortcuts"]
    assert found["speedup"] == found["rungs"]["reference"]["median"] / row["median"]
    assert row["floor"] * found["matrix_rate"] == pytest.approx(flops(batch))
    assert STEPS > 1
    inner, tokens = batch.shape.inner, 20
    products = tokens * (2 * 256 + 6 * 16 * inner + 12 * 256 + 6 * 16 * inner + 2 * 20 * 16) + 8 * 4 * 256
    assert flops(batch) == 2 * products + 3 * tokens * 4 * (4 + 4) * 16
