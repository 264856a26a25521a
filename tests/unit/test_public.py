"""The names that users see."""

import clockwork_diffusion as cd


def test_the_door_shows_at_most_fifteen_names_each_with_an_example():
    """The examples are run where the library's other doctests are."""
    assert dir(cd) == sorted(cd.__all__) and len(cd.__all__) <= 15
    for name in cd.__all__:
        function = getattr(cd, name)
        assert callable(function), f"{name} is a {type(function).__name__}"
        assert ">>> " in function.__doc__, name


def test_methods_have_one_shape():
    for one, block in (
        ("clockwork", cd.clockwork),
        ("deepcache", cd.deepcache),
        ("depth_skip", cd.depth_skipped),
        ("timesteps", cd.at_timesteps),
    ):
        for verb in ("apply", "remove"):
            assert f"{verb}_{one}" in cd.__all__
        assert block.__wrapped__.__annotations__.keys() == (
            getattr(cd, f"apply_{one}").__annotations__.keys()
        )
