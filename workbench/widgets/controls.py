"""Controls of traits: each shows what a trait is and sets it, with the mouse or the keyboard."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as ipw
import traitlets as tr


def choice(owner: tr.HasTraits, trait: str, options: Sequence[Any], name: str, *, width: str = "auto") -> ipw.Widget:
    """A list to choose a trait's value from; options are values or (words, value)."""
    style = {"description_width": "initial"}
    made = ipw.Dropdown(options=list(options), description=name, style=style, layout=ipw.Layout(width=width))
    tr.link((owner, trait), (made, "value"))
    return made


def toggles(owner: tr.HasTraits, trait: str, options: Sequence[Any], tips: Sequence[str]) -> ipw.Widget:
    """Buttons of which one is down; options are values or (words, value)."""
    style = {"button_width": "auto"}
    made = ipw.ToggleButtons(options=list(options), tooltips=list(tips), style=style, layout=ipw.Layout(width="auto"))
    tr.link((owner, trait), (made, "value"))
    return made


def stepper(owner: tr.HasTraits, trait: str, values: Sequence[Any], name: str, *, every: int = 900) -> ipw.Widget:
    """A slider through "all" (None) and the values, and a button that plays it, one value each `every` milliseconds."""
    options = [None, *values]
    slider = ipw.SelectionSlider(
        options=["all", *map(str, values)],
        description=name,
        style={"description_width": "initial"},
        layout=ipw.Layout(width="220px"),
    )
    tr.link((owner, trait), (slider, "index"), transform=(options.index, lambda place: options[place]))
    play = ipw.Play(min=0, max=len(options) - 1, interval=every, show_repeat=False, layout=ipw.Layout(width="auto"))
    tr.link((play, "value"), (slider, "index"))
    return ipw.HBox([slider, play], layout=ipw.Layout(align_items="center", width="auto"))


def filters(
    owner: tr.HasTraits, trait: str, values: Mapping[str, Sequence[tuple[str, Any]]], titles: Mapping[str, str]
) -> list[ipw.Widget]:
    """A column and those of its values that are kept; the trait is column -> values, and each column that was set stays
    set. values: (words, value) of each column; titles: of columns, as readers know them."""
    narrow = {"description_width": "initial"}
    options = [(titles[name], name) for name in values]
    column: Any = ipw.Dropdown(
        options=options, description="only where", style=narrow, layout=ipw.Layout(width="250px")
    )
    chosen = ipw.SelectMultiple(rows=3, description="is", style=narrow, layout=ipw.Layout(width="190px"))

    def offer(change: Any = None) -> None:
        before = getattr(owner, trait).get(column.value, ())
        chosen.options = values[column.value]
        chosen.value = tuple(value for _, value in values[column.value] if value in before)

    def keep(change: Any) -> None:
        before = {name: found for name, found in getattr(owner, trait).items() if name != column.value}
        setattr(owner, trait, before | ({column.value: tuple(chosen.value)} if chosen.value else {}))

    offer()
    column.observe(lambda change: offer(), "value")
    chosen.observe(keep, "value")
    owner.observe(offer, trait)
    return [column, chosen]


def button(name: str, act: Callable[[], Any], tip: str = "", say: Callable[[str], None] | None = None) -> ipw.Button:
    """A button; what `act` refuses (ValueError, TraitError, OSError) is said, as is a text that it returns."""
    made = ipw.Button(description=name, tooltip=tip, layout=ipw.Layout(width="auto", min_width="80px", flex="none"))

    def press(_: Any) -> None:
        try:
            words = act()
        except (ValueError, tr.TraitError, OSError) as error:
            words = str(error)
        if say is not None:
            say(words if isinstance(words, str) else "")

    made.on_click(press)
    return made


def words(owner: tr.HasTraits, trait: str, name: str, hint: str) -> ipw.Widget:
    """A line of text; the trait follows when it is entered."""
    style = {"description_width": "initial"}
    layout = ipw.Layout(width="210px")
    made = ipw.Text(placeholder=hint, description=name, continuous_update=False, style=style, layout=layout)
    tr.link((owner, trait), (made, "value"))
    return made
