"""`edgeward recipes`: which recipes there are, and what is in one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgeward.cli.options import AsJson
from edgeward.cli.reply import Reply, table

recipes = typer.Typer(help="Recipes: list them, show one.", no_args_is_help=False, rich_markup_mode=None)


@recipes.command("list")
def list_recipes(as_json: AsJson = False) -> Reply:
    """List the recipes and their presets."""
    from edgeward.recipes import RECIPES

    entries = [
        {"name": slug, "presets": sorted(kind.presets), "summary": kind.summary, "paper": kind.paper}
        for slug, kind in RECIPES.items()
    ]
    rows = [(e["name"], ", ".join(e["presets"]), e["summary"]) for e in entries]
    return Reply({"recipes": entries}, [table(("name", "presets", "what it does"), rows)])


@recipes.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(help="A recipe, with its preset if it has one: gecko:crossfit.")],
    as_json: AsJson = False,
) -> Reply:
    """Show a recipe's settings, source and expected claims."""
    from edgeward.recipes import resolve

    recipe = resolve(name)
    document: dict[str, Any] = {
        "name": name,
        "summary": recipe.summary,
        "paper": recipe.paper,
        "presets": {preset: dict(values) for preset, values in recipe.presets.items()},
        "settings": recipe.settings(),
        "expected": list(recipe.expected),
    }
    blocks: list[Any] = [f"{name}: {recipe.summary}", f"source: {recipe.paper}", ""]
    blocks += [table(("setting", "value"), list(recipe.settings().items()))]
    blocks += ["", *(f"expected of the paper: {line}" for line in recipe.expected)]
    return Reply(document, blocks)
