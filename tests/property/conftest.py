"""One profile for every property: the same examples in every run, none kept on disk, no clock in the way."""

from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    # Shrinking a run of the whole worker takes minutes; the example as found is short enough to read.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("repeatable")
