import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jnf_jax import configs, specs
from jnf_jax.likelihoods import heteroscedastic
from jnf_jax.models import jnf
from jnf_jax.networks import base, conv, convolution, mlp, modalities, resnet

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize("shape", [(28, 28), (7, 10), (32, 5)])
def test_halve_and_double_are_the_strided_and_the_transposed_convolution(shape, size):
    x = jax.random.normal(jax.random.key(0), (2, *shape, 3))
    kernel = jax.random.normal(jax.random.key(1), (size, size, 3, 3))

    def conv(x, kernel):
        padding = "SAME" if size == 4 else [(1, 1), (1, 1)]
        return jax.lax.conv_general_dilated(x, kernel, (2, 2), padding, dimension_numbers=DIMENSIONS)

    def transposed(x, kernel):
        image = jnp.zeros((x.shape[0], 2 * x.shape[1], 2 * x.shape[2], 3))
        return jax.linear_transpose(lambda image: conv(image, kernel), image)(x)[0]

    pairs = [
        (convolution.halve, conv),
        (convolution.halve_by_lax, conv),
        (convolution.double, transposed),
        (convolution.double_by_lax, transposed),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose(jax.jit(ours)(x, kernel), jax.jit(theirs)(x, kernel), atol=1e-10)
        loss = lambda f: lambda x, k: jnp.sin(f(x, k)).sum()
        gradients = [jax.jit(jax.grad(loss(f), argnums=(0, 1)))(x, kernel) for f in (ours, theirs)]
        for mine, reference in zip(*gradients, strict=True):
            np.testing.assert_allclose(mine, reference, atol=1e-10)


def test_pieces_of_a_batch_add_up_to_the_whole(monkeypatch):
    x, kernel = jax.random.normal(jax.random.key(0), (6, 6, 6, 2)), jax.random.normal(jax.random.key(1), (4, 4, 2, 2))
    loss = lambda x, k: jnp.sin(convolution.double(jnp.sin(convolution.halve(x, k)), k)).sum()
    whole = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(x, kernel)
    monkeypatch.setattr(convolution, "_PIECE", 100)
    assert convolution._num_pieces(6, 1_000) == 3
    assert convolution._num_pieces(7, 1_000) == 1
    pieces = jax.jit(jax.value_and_grad(lambda x, k: loss(x, k), argnums=(0, 1)))(x, kernel)
    for one, other in zip(jax.tree.leaves(whole), jax.tree.leaves(pieces), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)


@pytest.mark.parametrize(("platform", "convolutions"), [("cpu", False), ("cuda", True), ("tpu", True)])
def test_accelerators_keep_their_convolutions(platform, convolutions):
    x, kernel = jnp.zeros((2, 8, 8, 3)), jnp.zeros((4, 4, 3, 3))
    loss = lambda x, k: convolution.double(convolution.halve(x, k), k).sum()
    program = jax.export.export(jax.jit(jax.grad(loss, argnums=(0, 1))), platforms=[platform])(x, kernel)
    assert ("stablehlo.convolution" in program.mlir_module()) == convolutions


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (mlp.Config(hidden=(8,)), (9, 14, 2)),
        (mlp.Config(hidden=()), (5,)),
        (conv.Config(channels=(4, 4, 4), kernel=3, hidden=None, decoder_hidden=None), (28, 28, 3)),
        *((conv.Config(channels=(4, 4), hidden=8), shape) for shape in [(28, 28, 1), (32, 32, 3), (64, 64, 3), (9, 14, 2)]),
        *((resnet.Config(channels=4, num_levels=2), shape) for shape in [(28, 28, 3), (9, 14, 2)]),
    ],
)
def test_shapes_and_gradients(config, shape):
    spec = specs.ModalitySpec(shape=shape, likelihood="laplace", support=(0.0, 1.0))
    networks = configs.build(config, spec)
    x, z = jnp.ones((2, *shape)) * 0.3, jax.random.normal(jax.random.key(0), (2, 3))

    @jax.jit
    def run():
        encoder, decoder = networks.encoder.init(jax.random.key(1), x), networks.decoder.init(jax.random.key(2), z)
        gradient = jax.grad(lambda p: (networks.decoder.apply(p, z) ** 2).sum())(decoder)
        return networks.encoder.apply(encoder, x), networks.decoder.apply(decoder, z), gradient

    features, image, gradient = run()
    assert features.ndim == 2
    assert image.shape == (2, *shape)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("config", [conv.Config(channels=(4,), hidden=6), resnet.Config(channels=4, num_levels=1)])
@pytest.mark.parametrize(
    ("options", "channels"),
    [({"likelihood": heteroscedastic.Config()}, (3, 6)), ({"likelihood": "categorical", "num_categories": 5}, (15, 15))],
)
def test_several_parameters_and_categories_are_channels(config, options, channels):
    spec = specs.ModalitySpec(shape=(6, 5, 3), **options)
    networks = configs.build(config, spec)
    x, z = jnp.ones((2, *spec.input_shape)), jax.random.normal(jax.random.key(0), (2, 3))
    encoder, decoder = networks.encoder.init(jax.random.key(1), x), networks.decoder.init(jax.random.key(2), z)
    assert networks.encoder.apply(encoder, x).ndim == 2
    assert any(leaf.shape[-2:-1] == channels[:1] or leaf.shape[-1:] == channels[:1] for leaf in jax.tree.leaves(encoder))
    assert networks.decoder.apply(decoder, z).shape == (2, 6, 5, channels[1])
    made = modalities.Modalities(specs={"a": spec}, networks={"a": networks}, kinds={"a": "a"})
    params = made.init_decoders(jax.random.key(3), 3)
    assert made.decode_one(params, "a", z).shape == (2, *spec.parameter_shape)


@pytest.mark.parametrize("config", [conv.Config(channels=(4, 4, 4)), resnet.Config(num_levels=3)])
@pytest.mark.parametrize(("shape", "message"), [((20,), "image modality"), ((4, 4, 1), "at least 8 pixels")])
def test_what_is_no_image_is_refused(config, shape, message):
    with pytest.raises(ValueError, match=message):
        configs.build(config, specs.ModalitySpec(shape=shape))


@pytest.mark.parametrize("config", [conv.Config(channels=(4,)), resnet.Config(num_levels=1)])
def test_a_table_of_counts_is_no_image(config):
    with pytest.raises(ValueError, match="image modality"):
        configs.build(config, specs.ModalitySpec(shape=(8, 8), likelihood="negative_binomial", library=10.0))


@pytest.mark.parametrize("transform", base.SCALE_TRANSFORMS)
def test_scales_are_positive_and_one_at_zero(transform):
    scale = base.positive(jnp.linspace(-50, 50, 101), transform)
    assert (scale > 0).all()
    assert jnp.isfinite(jnp.log(scale)).all()
    np.testing.assert_allclose(base.positive(jnp.zeros(()), transform), 1, atol=1e-3)


def test_unknown_scale_transform_is_refused():
    with pytest.raises(ValueError, match="Expected a scale transform"):
        base.positive(jnp.zeros(()), "square")


class OwnEncoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(6, name="mine")(x.reshape(len(x), -1))


def test_modules_of_ones_own_stand_in_for_any_network():
    modalities = {name: specs.ModalitySpec(shape=(3,)) for name in "ab"}
    own = base.Networks(encoder=OwnEncoder(), decoder=nn.Dense(3))
    config = jnf.Config(latent_dim=2, network=mlp.Config(hidden=(4,)))
    model = jnf.build(config, modalities, networks={"a": own}, joint_trunk=nn.Sequential([nn.Dense(5), nn.tanh]))
    params = jax.jit(model.init)(jax.random.key(0))
    assert "mine" in params["joint"]["encoders"]["a"]["params"]
    assert "mine" in params["experts"]["encoders"]["a"]["params"]
    batch = {name: jnp.ones((2, 3)) for name in "ab"}
    assert jnp.isfinite(model.stages[0].loss(params, jax.random.key(0), batch)[0])
    with pytest.raises(ValueError, match=r"networks given .* got \['c'\]"):
        jnf.build(config, modalities, networks={"c": own})


def test_a_decoder_of_another_size_is_named():
    two = {"a": specs.ModalitySpec(shape=(5,)), "b": specs.ModalitySpec(shape=(3,))}
    wrong = base.Networks(encoder=mlp.MLP(hidden=(4,)), decoder=mlp.Decoder(hidden=(4,), shape=(7,)))
    model = jnf.build(jnf.Config(latent_dim=2, network=mlp.Config(hidden=(4,))), two, networks={"b": wrong})
    with pytest.raises(ValueError, match=r"Expected the decoder of modality 'b' to return \(1, 3\) for one code, got \(1, 7\)"):
        jax.eval_shape(model.init, jax.random.key(0))


class Told(nn.Module):
    """A network that does what it is told."""

    kind: str

    @nn.compact
    def __call__(self, x):
        x = nn.Dense(4)(x.reshape(len(x), -1))
        match self.kind:
            case "of three axes":
                return x[:, None]
            case "twice as many":
                return jnp.concatenate([x, x])[:, :2]
            case "running means":
                return nn.BatchNorm(use_running_average=True)(x)
            case "a constant":
                return x + self.variable("constants", "table", lambda: jnp.ones(4)).value


@pytest.mark.parametrize(
    ("place", "kind", "message"),
    [
        ("encoder", "of three axes", r"encoder of modality 'a' to return \(1, F\) for one example, got \(1, 1, 4\)"),
        ("decoder", "twice as many", r"decoder of modality 'a' to return \(1, 4\) for one code, got \(2, 2\)"),
        ("encoder", "running means", r"variables are all parameters, got Told with \['batch_stats'\]"),
        ("decoder", "a constant", r"variables are all parameters, got Told with \['constants'\]"),
    ],
)
def test_networks_of_ones_own_that_do_not_fit_are_named(place, kind, message):
    modalities = {name: specs.ModalitySpec(shape=(4,)) for name in "ab"}
    own = base.Networks(**{"encoder": nn.Dense(4), "decoder": nn.Dense(4), place: Told(kind)})
    model = jnf.build(jnf.Config(latent_dim=2, network=mlp.Config(hidden=(4,))), modalities, networks={"a": own})
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0))


@pytest.mark.parametrize("network", [conv.Config(channels=(4,), hidden=None), mlp.Config(hidden=(8,))])
def test_networks_compute_on_data_of_half_precision_in_float32(network):
    spec = specs.ModalitySpec(shape=(8, 8, 1), likelihood="laplace", support=(0.0, 1.0))
    built = modalities.build({"a": spec, "b": spec}, network, {}, {})
    encoders = built.init_encoders(jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1)).astype(jnp.float16)
    features = built.features(encoders, "a", x)
    assert features.dtype == jnp.float32
    np.testing.assert_array_equal(features, built.features(encoders, "a", x.astype(jnp.float32)))


def test_bfloat16_networks_keep_float32_parameters_and_come_close():
    modalities = {name: specs.ModalitySpec(shape=(8, 8, 3)) for name in "ab"}
    config = jnf.Config(latent_dim=4, network=conv.Config(channels=(8,), hidden=16, decoder_hidden=16))
    exact, low = (jnf.build(dataclasses.replace(config, precision=p), modalities) for p in ("float32", "bfloat16"))
    params = jax.jit(low.init)(jax.random.key(0))
    batch = {name: jax.random.normal(jax.random.key(i), (16, 8, 8, 3)) for i, name in enumerate("ab")}
    evaluate = lambda model: jax.jit(jax.value_and_grad(lambda p: model.stages[0].loss(p, jax.random.key(3), batch)[0]))(params)
    (loss, gradient), (close, close_gradient) = evaluate(exact), evaluate(low)
    assert loss != close  # it did compute in fewer bits: a relative rounding error of 2^-9 each
    np.testing.assert_allclose(close, loss, rtol=2**-6)
    for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(close_gradient), strict=True):
        assert other.dtype == one.dtype
    flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    assert np.corrcoef(flat(gradient), flat(close_gradient))[0, 1] > 0.999


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="float32 or bfloat16, got 'float8'"):
        modalities.build({name: specs.ModalitySpec(shape=(3,)) for name in "ab"}, mlp.Config(), {}, {}, precision="float8")


def test_networks_of_one_form_are_traced_as_often_as_one():
    """Whatever is traced is compiled."""
    traced = []

    class Counted(nn.Module):
        width: int

        @nn.compact
        def __call__(self, x):
            traced.append(self.width)
            return nn.Dense(self.width)(x.reshape(len(x), -1))

    def times(num, width):
        shapes = {f"m{i}": specs.ModalitySpec(shape=(2, 3)) for i in range(num)}
        own = base.Networks(encoder=Counted(width), decoder=mlp.Decoder(hidden=(), shape=(2, 3)))
        params = jnf.build(jnf.Config(latent_dim=2), shapes, networks=dict.fromkeys(shapes, own)).init(jax.random.key(0))
        first, last = (params["joint"]["encoders"][name]["params"]["Dense_0"]["kernel"] for name in ("m0", f"m{num - 1}"))
        assert not np.array_equal(first, last)
        return traced.count(width)

    assert times(6, 5) == times(2, 4) == 2  # for its shape, and for its parameters


@pytest.mark.parametrize("widths", [(3,), [3]])
def test_modules_that_can_be_hashed_and_others_have_the_parameters_that_flax_gives_them(widths):
    class Own(nn.Module):
        widths: object

        @nn.compact
        def __call__(self, x):
            return nn.Dense(self.widths[0])(x)

    module, key = Own(widths), jax.random.key(0)
    expected = module.init(key, jnp.zeros((1, 2)))
    jax.tree.map(np.testing.assert_array_equal, base.init(module, key, (1, 2)), expected)
    assert base.output_shape(module, (1, 2)) == (1, 3)
