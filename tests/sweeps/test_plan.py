import pytest
import yaml

from sweeps.cli.options import parser
from sweeps.errors import WrongInput
from sweeps.plan import short_digest
from sweeps.settings import merge, resolve, site_of
from sweeps.site import Site, has_secret, to_yaml


def test_defaults_are_the_plan_of_the_first_command():
    plan = resolve({})
    assert [task.name for task in plan.tasks] == ["digits/mlp"]
    assert plan.trials >= 8
    assert plan.seeds >= 4
    assert plan.epsilon == (0.0, 0.4)
    assert plan.policy == "safe"


def test_yaml_reproduces_the_plan():
    plan = resolve(
        {
            "tasks": [
                "fashion_mnist/?*p",
                "fashion_mnist/cnn",
                {"task": "digits/resnet8", "epochs": 7, "augment": "flip, translate:1", "clip": 2},
            ],
            "execution": "looped:16:2",
            "precision": "bfloat16",
            "rungs": False,
            "epsilon": "0.05:0.3",
            "tune": {"learning_rate": [0.001, 0.1]},
            "tolerances": {"nll_relative": 0.02},
            "seeds": 5,
        }
    )
    assert resolve(yaml.safe_load(to_yaml(plan, Site()))) == plan
    assert [task.name for task in plan.tasks] == ["fashion_mnist/mlp", "fashion_mnist/cnn", "digits/resnet8"]
    assert plan.tasks[2].recipe.epochs == 7
    assert plan.tasks[2].recipe.augment == ("flip", "translate:1")
    assert plan.tasks[2].recipe.clip == 2


def test_names_to_tune_may_come_without_ranges():
    def plan(*words, **values):
        return resolve(merge(vars(parser().parse_args(words)), values))

    one = plan("--tune", "weight_decay,learning_rate,smoothing", "digits/mlp")
    task = one.tasks[0]
    assert one.ranges(task) == {"weight_decay": (0.0025, 0.04), "learning_rate": (0.00075, 0.012)}
    assert one.smoothing == ("uniform", "class_prior", "online")
    assert one.tuned
    two = plan("--tune", "smoothing=uniform,table:likely.npy@decay", "--tune", "weight_decay=1e-4:1e-2")
    assert two.smoothing == ("uniform", "table:likely.npy@decay")
    assert two.ranges(task) == {"weight_decay": (1e-4, 1e-2)}
    assert plan("--smoothing", "uniform,online") == plan("--tune", "smoothing=uniform,online")
    assert not plan("--smoothing", "online@warm_up").tuned
    for one_of in (one, two, plan("--smoothing", "online@warm_up")):
        assert resolve(yaml.safe_load(to_yaml(one_of, Site()))) == one_of


def test_epsilon_may_be_below_zero_where_it_is_written():
    for words in (
        ["--epsilon", "-0.2:0.4"],
        ["--epsilon=-0.2:0.4"],
        ["--epsilon", "-.2:0.4", "--seeds", "3"],
    ):
        assert resolve(merge(vars(parser().parse_args(words)), {})).epsilon == (-0.2, 0.4)
    with pytest.raises(WrongInput, match="Did you mean --epsilon"):
        parser().parse_args(["--epsilom", "-0.2:0.4"])


def test_flags_win_over_yaml_and_yaml_over_the_environment(monkeypatch):
    monkeypatch.setenv("OPTUNA_STORAGE", "sqlite:///environment.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///environment-mlflow.db")
    flags = vars(parser().parse_args(["--seeds", "3", "--epochs", "4"]))
    values = merge(flags, {"seeds": 9, "trials": 5, "storage": "sqlite:///yaml.db"})
    plan, site = resolve(values), site_of(values)
    assert (plan.seeds, plan.trials, plan.tasks[0].recipe.epochs) == (3, 5, 4)
    assert site.storage == "sqlite:///yaml.db"
    assert site.tracking_uri == "sqlite:///environment-mlflow.db"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tasks": ["digts/mlp"]}, "Did you mean 'digits'"),
        ({"tasks": ["digits/mpl"]}, "Did you mean 'mlp'"),
        ({"tasks": ["mnist*/cnn"]}, "no task named"),
        ({"tasks": []}, "wanted a list"),
        ({"tasks": [{"task": "digits/mlp", "epoch": 3}]}, "Did you mean 'epochs'"),
        ({"trils": 3}, "Did you mean 'trials'"),
        ({"trials": 1}, "at least 2"),
        ({"trials": True}, "whole number"),
        ({"seeds": "many"}, "whole number"),
        ({"epochs": 0}, "at least 1"),
        ({"learning_rate": 0}, "above 0"),
        ({"learning_rate": "nan"}, "finite"),
        ({"epsilon": "0:1"}, "HIGH < 1"),
        ({"epsilon": "-0.1:-0.2"}, "LOW < HIGH"),
        ({"epsilon": "-0.1:0.2", "smoothing": "margin"}, "with smoothing margin it is a strength"),
        ({"smoothing": "table"}, "needs a file"),
        ({"smoothing": "uniform:x.npy"}, "takes no file"),
        ({"smoothing": "table:x.pkl"}, "allowed are .npy"),
        ({"smoothing": "uniform@decy"}, "Did you mean 'decay'"),
        ({"smoothing": ["uniform", "class_priro"]}, "Did you mean 'class_prior'"),
        ({"smoothing": []}, "wanted a name"),
        ({"tune": {"smoothing": "uniform,onlin"}}, "Did you mean 'online'"),
        ({"tune": {"weight_decay": None}, "weight_decay": 0}, "give --tune weight_decay=LOW:HIGH"),
        ({"epsilon": "0.3:0.2"}, "LOW < HIGH"),
        ({"epsilon": "0.3"}, "LOW:HIGH"),
        ({"epsilon": [0, 0.1, 0.2]}, "LOW:HIGH"),
        ({"smoothing": "unifrom"}, "Did you mean 'uniform'"),
        ({"policy": "save"}, "Did you mean 'safe'"),
        ({"tune": {"epochs": [1, 2]}}, "no tunable value"),
        ({"tune": {"learning_rate": [0, 1]}}, "0 < LOW"),
        ({"tolerances": {"nll": 1}}, "no tolerance named"),
        ({"device": 3}, "wanted some text"),
    ],
)
def test_wrong_values_are_named(values, message):
    with pytest.raises(WrongInput, match=message):
        resolve(values), site_of(values)


def test_the_key_depends_on_science_alone():
    def key(**values):
        plan = resolve(values)
        return short_digest(plan.science(plan.tasks[0], "abc"))

    assert key() == key(trials=30, policy="accuracy", device="cpu", confirm_seeds=9)
    assert (
        len(
            {
                key(),
                key(seeds=5),
                key(epochs=3),
                key(epsilon="0:0.3"),
                key(smoothing="class_prior"),
                key(train_examples=400),
            }
        )
        == 6
    )


def test_a_password_does_not_reach_the_yaml():
    given = {"storage": "postgresql+psycopg://me:secret@host/db"}
    site = site_of(given)
    assert has_secret(site.storage)
    text = to_yaml(resolve(given), site)
    assert "secret" not in text
    assert Site.storage not in text
