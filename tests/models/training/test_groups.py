# SPDX-License-Identifier: Apache-2.0
"""Training with groups of input channels: whose number a run takes, its norms, and what it hands on."""

import json

import pytest
import torch
from safetensors.torch import save_file
from support.training import stopped_in

from bmhw import train
from bmhw.errors import UsageError
from bmhw.models import ModelError, load
from bmhw.models.files.cards import entry
from bmhw.models.files.float_weights import load_float
from bmhw.models.files.initial import Initial
from bmhw.models.files.store import read_card
from bmhw.models.networks.architecture import ARCHITECTURES, resnet_small
from bmhw.models.networks.groups import GroupInputs, to_json
from bmhw.models.networks.network import Network, with_classical_weights
from bmhw.models.networks.wiring import Wiring
from bmhw.models.operators.max_product import max_product_difference
from bmhw.models.operators.smoothed import norm_difference, smoothed_gradient_difference
from bmhw.models.training.comparison import command
from bmhw.models.training.methods import METHODS

FEW = ["--classical-epochs=1", "--bm-epochs=1", "--quantised-epochs=1", "--epoch-images=64", "--architecture=tiny",
       "--validation-images=100"]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "tiny", lambda channels, size: resnet_small(channels, size, filters=4))


def settings(*options, initial=None, folder=None):
    args = train.parser().parse_args([*map(str, options)])
    return train.settings_from(args, train.recipe_from(args), initial, folder)


def initial(groups, phases=("classical", "bm"), **fields):
    return Initial(path=None, states=dict.fromkeys(phases), checksum="", groups=groups, **fields)


@pytest.mark.parametrize(
    ("options", "found", "groups"),
    [
        ([], None, 4),
        (["--groups", 2], None, 2),
        (["--combine", "logarithmic"], None, 1),
        (["--layout", "mac"], None, 1),
        (["--layout", "wired"], initial(1, ["classical"]), 4),
        ([], initial(3), 3),
        ([], initial(1), 1),
        (["--groups", 2], initial(2), 2),
        (["--group-inputs", 16], None, GroupInputs(16)),
        (["--group-inputs", 1], initial(4), GroupInputs(1)),
        ([], initial(GroupInputs(9)), GroupInputs(9)),
    ],
)
def test_whose_groups_a_run_takes(options, found, groups):
    chosen = settings(*options, initial=found)
    assert chosen.quantisation.groups == groups
    assert chosen.norm == (16 if groups == 1 else 8)


def test_a_network_with_groups_is_gone_on_from():
    recipe = settings("--groups", 1)
    chosen = settings(initial=initial(4))
    assert (chosen.method, chosen.rates[1], chosen.epochs[1]) == ("fine-tuning", 2e-3, 0)
    merged = settings(initial=initial(4, merged=True))
    assert (merged.method, merged.epochs[1]) == ("fine-tuning", recipe.epochs[1]) and merged.epochs[0] == 0
    # in other groups its weights are those of other maxima
    again = settings(initial=initial(GroupInputs(16), regrouped_from=4))
    assert (again.method, again.rates[1], again.epochs) == ("fine-tuning", 2e-3, (0, *recipe.epochs[1:]))
    chosen = settings("--method", "annealed", "--bm-rate", 0.5, "--norm", 12, initial=initial(4))
    assert (chosen.method, chosen.rates[1], chosen.norm) == ("annealed", 0.5, 12)
    # without groups everything is as it was
    chosen = settings(initial=initial(1))
    assert (chosen.method, chosen.rates, chosen.norm) == (recipe.method, recipe.rates, 16)
    assert settings(initial=initial(1, ["classical"])).method == recipe.method


def test_images_that_are_held_off():
    assert settings().validation == 200 and settings("--validation-images", 90).validation == 90
    with pytest.raises(UsageError, match="--validation-images must be an integer of 1 or more, not 0"):
        settings("--validation-images", 0)


def test_widths_of_codes():
    chosen = settings("--edge-bits", 8, "--log-bits", 4, "--log-fraction", 2, "--zero", "step", "--out-fraction", 9)
    quantisation = chosen.quantisation
    assert (quantisation.edge_bits, quantisation.zero, quantisation.out_fraction) == (8, "step", 9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--groups", 0], "--groups must be an integer from 1 to 65536, not 0"),
        (["--groups", "two"], "not 'two'"),
        (["--groups", 2, "--layout", "mac"], "--groups 2 is for bipolar morphological layers"),
        (["--groups", 2, "--combine", "logarithmic"], "--groups 2 adds linear numbers"),
        (["--group-inputs", 0], "--group-inputs must be an integer from 1 to 65536, not 0"),
        (["--group-inputs", 65537], "--group-inputs must be an integer from 1 to 65536, not 65537"),
        (["--group-inputs", "few"], "--group-inputs must be an integer from 1 to 65536, not 'few'"),
        (["--group-inputs", 9, "--layout", "mac"], "--group-inputs 9 is for bipolar morphological layers"),
        (["--group-inputs", 9, "--combine", "logarithmic"], "--group-inputs 9 adds linear numbers"),
        (["--norm", 0.5], "--norm must be from 1 to 64, not 0.5"),
        (["--norm", "nan"], "--norm must be from 1 to 64, not nan"),
        (["--edge-bits", 1], "from 2 to 16, not 1"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(options, message):
    with pytest.raises(UsageError, match=message) as error:
        settings(*options)
    assert "\n" not in str(error.value)


def test_groups_are_a_number_or_inputs(capsys):
    with pytest.raises(SystemExit) as error:
        settings("--groups", 4, "--group-inputs", 16)
    assert error.value.code == 2
    assert capsys.readouterr().err.endswith("error: argument --group-inputs: not allowed with argument --groups\n")


def test_norms_go_up_to_the_one_that_is_asked_for(tiny_architecture):
    classical = Network(tiny_architecture, tiny_architecture.layouts("mac"))
    network = with_classical_weights(classical, tiny_architecture.layouts(), 4)
    layer = network.steps["stem"]

    def stands_for_maxima(method, share):
        METHODS[method].prepare(network, share, 8.0)
        chosen = layer.training_difference
        return (chosen, None) if chosen is max_product_difference else (chosen.func, chosen.keywords["p"])

    assert stands_for_maxima("annealed", 0.0) == (norm_difference, 1)
    assert stands_for_maxima("annealed", 0.25)[1] == pytest.approx(8**0.5)
    assert stands_for_maxima("annealed", 0.49) == (norm_difference, 8)
    assert stands_for_maxima("annealed", 0.5) == (smoothed_gradient_difference, 8)
    assert stands_for_maxima("fine-tuning", 0.79) == (norm_difference, 8)
    assert stands_for_maxima("fine-tuning", 0.8) == (smoothed_gradient_difference, 8)


def test_a_classical_network_is_wired_as_its_successor(tiny_architecture):
    """Half of each group's inputs to each maximum."""
    torch.manual_seed(0)
    layouts = tiny_architecture.layouts("wired")
    classical = Network(tiny_architecture, tiny_architecture.layouts("mac"))
    Wiring(classical, layouts, 2).apply()
    bm = with_classical_weights(classical, layouts, 2)
    for name, layout in layouts.items():
        if layout == "wired":
            signs = classical.steps[name].weight.detach().sign()
            assert torch.equal(signs, bm.steps[name].weight.detach().sign())
            sums = signs.unflatten(1, (bm.steps[name].groups, -1)).sum(dim=(2, 3, 4))
            assert (sums == 0).all()


@pytest.mark.parametrize(("options", "groups"), [("--groups 2", 2), ("--group-inputs 18", GroupInputs(18))])
def test_from_the_classical_network_to_integers_and_on(options, groups, tmp_path, capsys):
    """They go from phase to phase, into card and files, into what starts from these and what is resumed."""
    first = tmp_path / "first"
    assert train.main([*FEW, *options.split(), "--out", str(first), "--name", "net"]) == 0
    card = read_card(first / "net.json")
    assert card["training"]["quantisation"]["groups"] == card["float_weights"]["groups"] == to_json(groups)
    assert entry(first / "net.json")["groups"] == to_json(groups)
    assert load_float(first / "net.json")["bm"].groups == groups
    formats = {name: layer.format for name, layer in load(first / "net.json").layers.items()}
    inner = {name: fmt.groups for name, fmt in formats.items() if name.startswith("stage")}
    assert formats["stem"].groups == 1 and inner == {
        "stage0_conv1": 2, "stage0_conv2": 2, "stage1_conv1": 2, "stage1_conv2": 2 if groups == 2 else 4,
        "stage1_shortcut": 2 if groups == 2 else 1}
    words = command("net", card["training"], {})
    assert all(word in words for word in (f" {options} ", "--norm 8", "--validation-images 100"))
    assert words.count("--group") == 1
    # a run that starts there, without the option, that is stopped and resumed
    second = [*FEW, "--init-from", str(first / "net-float.safetensors"), "--out", str(tmp_path / "second")]
    with stopped_in(2):
        assert train.main([*second, "--name", "net"]) == 130
    assert train.main([*second, "--name", "net", "--resume"]) == 0
    card = read_card(tmp_path / "second" / "net.json")
    assert card["training"]["quantisation"]["groups"] == to_json(groups)
    assert card["training"]["method"] == "fine-tuning"
    # the network of maxima by itself, with its teacher
    networks = load_float(first / "net.json")
    for kind, network in networks.items():
        save_file(network.state_dict(), tmp_path / f"{kind}.safetensors")
    teacher = tmp_path / "classical.safetensors"
    third = [*FEW, "--classical-epochs=0", "--bm-epochs=0", "--quantised-epochs=0", *options.split(), "--name=net",
             "--init-from", str(tmp_path / "bm.safetensors"), "--teacher", str(teacher), f"--out={tmp_path / 'third'}"]
    capsys.readouterr()
    with pytest.raises(ModelError, match=f"The network of {teacher} is right in .* near chance"):  # of 64 images
        train.main(third)
    assert train.main([*third, "--accept-import"]) == 0
    assert f"Bipolar morphological network: groups {groups}" in capsys.readouterr().err
    training = json.loads((tmp_path / "third" / "net.json").read_text())["training"]
    assert training["teacher"] != training["initial"]
    assert "--teacher SHA256-" in command("net", training, {})
    with pytest.raises(UsageError, match="--teacher is about the network of --init-from"):
        train.main(["--teacher", "x"])
