"""Facts with knobs: a real measurement that runs again when a control changes, drawn and said in words.

The only module that imports ipywidgets, and only when something is shown; where it is missing, the same call gives
the facts, which print as text.

All controls are worked by keyboard alone in JupyterLab and Notebook 7. Those swallow the arrow keys of sliders,
dropdowns and radio buttons (they move the selected cell instead), and ipywidgets' sliders have no accessible name:
so numbers are number fields, and choices are buttons. The fields are those without bounds, because ipywidgets' bounded
ones turn 99 into 9 without a word: here the number is refused with its range, and the field shows the last good one again.
"""

from __future__ import annotations

import functools
import html
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from tutorlib import pictures
from tutorlib.facts import Facts, cell

__all__ = ["explore"]


def explore(
    compute: Callable[..., Facts], draw: Callable[[Any], str] | None = None, *, run: str = "change", **controls: Any
) -> Any:
    """Show `draw(compute(...))` with a control for each keyword, and measure again when one changes.

    `compute(**settings)` returns facts from a real run; `draw(facts)` one HTML string, as `pictures.timeline` does (None: the
    facts' table only). Controls are abbreviations: `(0, 4)` or `(0, 4, 2)` a whole number from 0 to 4, `(0.0, 1.0)` a
    number, `["a", "b"]` or `{"label": value}` a choice, `True` a check box, `"text"` a text field, or any ipywidget.
    A parameter's default in `compute` is where its control starts. `run="button"` waits for a button: for what takes long.

    The view has `.facts`, `.settings` and `.set(**settings)`, which does by argument what the controls do and raises what
    `compute` raises (in the view it is one line, and the last good picture stays). As text it is the facts' text, and a
    notebook stores it as a picture and a table. Without ipywidgets the facts themselves come back.
    Errors: TypeError when controls and parameters do not fit; ValueError for a value out of range or an unknown name.

    >>> from tutorlib.facts import Table
    >>> def halves(size=6):
    ...     return Table(f"{size} samples over 2 workers", [{"worker": w, "samples": list(range(size))[w::2]} for w in (0, 1)])
    >>> view = explore(halves, size=(0, 9))
    >>> view
    6 samples over 2 workers
    worker  samples
         0  [0, 2, 4]
         1  [1, 3, 5]
    >>> view.set(size=3).facts
    3 samples over 2 workers
    worker  samples
         0  [0, 2]
         1  [1]
    >>> view.set(size=10)
    Traceback (most recent call last):
        ...
    ValueError: size=10 is out of range: expected a whole number from 0 to 9
    """
    if run not in ("change", "button"):
        raise ValueError(f"run={run!r}: expected 'change' or 'button'")
    defaults = _fitting(compute, controls)
    try:
        view = _view_class()
    except ImportError:
        return compute(**{name: _initial(name, control, defaults) for name, control in controls.items()})
    return view(compute, draw, controls, defaults, run == "button")


def _fitting(compute: Callable[..., Any], controls: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of compute's parameters; TypeError unless each control has a parameter and each parameter a value."""
    try:
        parameters = inspect.signature(compute).parameters.values()
    except (TypeError, ValueError):  # a builtin that does not say
        return {}
    name = getattr(compute, "__name__", "compute")
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        takes = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        strangers = [control for control in controls if control not in takes]
        if strangers:
            raise TypeError(f"{name}() has no parameter {', '.join(strangers)}: it takes {', '.join(takes) or 'nothing'}")
    lacking = [
        p.name
        for p in parameters
        if p.default is p.empty
        and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and p.name not in controls
    ]
    if lacking:
        raise TypeError(f"{name}() needs {', '.join(lacking)}: give each a control or a default")
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _initial(name: str, control: Any, defaults: Mapping[str, Any]) -> Any:
    """Where a control starts, without ipywidgets."""
    if isinstance(control, (bool, str, Real)):
        return control
    if name in defaults:
        if isinstance(control, tuple):
            _check_range(name, defaults[name], all(isinstance(n, Integral) for n in control), *control[:2])
        return defaults[name]
    if isinstance(control, tuple):
        low, high, *step = control
        middle = low + (high - low) // 2 if all(isinstance(n, Integral) for n in control) else low + (high - low) / 2
        return low + (middle - low) // step[0] * step[0] if step else middle
    if isinstance(control, Mapping):
        return next(iter(control.values()))
    return next(iter(control)) if isinstance(control, Iterable) else control


def _line(error: BaseException) -> str:
    """An exception as one line; what a worker sends carries its whole traceback, of which the last line is the message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    name = type(error).__name__
    if not lines:
        return name
    return lines[-1] if "Traceback" in str(error) else f"{name}: {lines[0]}"


@functools.cache
def _view_class() -> Any:
    """The class `View`, made at its first use: ipywidgets takes a quarter of a second to import."""
    import ipywidgets

    w: Any = ipywidgets

    class View(w.VBox):
        """Controls, a line of status, and the drawn facts."""

        def __init__(
            self,
            compute: Callable[..., Facts],
            draw: Callable[[Any], str] | None,
            controls: Mapping[str, Any],
            defaults: Mapping[str, Any],
            button: bool,
        ) -> None:
            self._compute, self._draw = compute, draw
            self._controls = {name: _control(w, name, control, defaults) for name, control in controls.items()}
            self._silent = False
            self._status = w.HTML(layout=w.Layout(margin="6px 2px"))
            self._picture = w.HTML()
            self.facts: Facts = compute(**self.settings)  # before anything is shown: a failure here is the cell's failure
            for control in self._controls.values():
                control.observe(self._changed, "value")
            self._button = None
            shown = [c for c in self._controls.values() if isinstance(c, w.DOMWidget)]
            if button:
                self._button = w.Button(description="Run", tooltip="Run with these settings", icon="play")
                self._button.on_click(lambda _: self._run())
                shown.append(self._button)
            super().__init__(
                [w.Box(shown, layout=w.Layout(flex_flow="row wrap", grid_gap="4px 20px")), self._status, self._picture]
            )
            self.add_class("tutorlib-view")
            self._show(self.facts)

        @property
        def settings(self) -> dict[str, Any]:
            """The value of each control."""
            return {name: control.value for name, control in self._controls.items()}

        def set(self, **settings: Any) -> View:
            """Measure again with these settings, as if the controls had been moved; all or nothing."""
            for name, value in settings.items():
                if name not in self._controls:
                    raise ValueError(f"unknown setting {name!r}: this view has {', '.join(self._controls) or 'no controls'}")
                _check(w, name, self._controls[name], value)
            facts = self._compute(**{**self.settings, **settings})
            self._silent = True
            try:
                for name, value in settings.items():
                    self._controls[name].value = value
            finally:
                self._silent = False
            self._show(facts)
            return self

        def _changed(self, change: Any) -> None:
            if self._silent:
                return
            control = change["owner"]
            name = next(name for name, one in self._controls.items() if one is control)
            try:
                _check(w, name, control, change["new"])
            except ValueError as error:
                self._silent = True
                try:
                    control.value = change["old"]
                finally:
                    self._silent = False
                self._say(f"{error}; {name} stays {cell(change['old'])}", failed=True)
                return
            if self._button is not None:
                self._say("changed: press Run")
            else:
                self._run()

        def _run(self) -> None:
            self._say("running\N{HORIZONTAL ELLIPSIS}")
            if self._button is not None:
                self._button.disabled = True
            try:
                self._show(self._compute(**self.settings))
            except Exception as error:  # any: it must not vanish in the kernel's log
                self._say(_line(error), failed=True)
            finally:
                if self._button is not None:
                    self._button.disabled = False

        def _show(self, facts: Facts) -> None:
            drawn = _html(facts, self._draw)
            self.facts = facts
            self._picture.value = str(drawn)
            chosen = ", ".join(f"{name} = {cell(value)}" for name, value in self.settings.items())
            self._say(f"{chosen}: {facts.summary()}" if chosen else facts.summary())

        def _say(self, text: str, failed: bool = False) -> None:
            role, look = ("alert", "font-weight:600") if failed else ("status", "")
            sign = "! " if failed else ""
            live = "assertive" if failed else "polite"
            self._status.value = (
                f'<div role="{role}" aria-live="{live}" style="line-height:1.4;{look}">{sign}{html.escape(text)}</div>'
            )

        def __repr__(self) -> str:
            return str(self.facts)

        def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
            # ipywidgets cuts the text at 110 characters; a reader without widgets gets the whole of it, and the picture.
            bundle = dict(super()._repr_mimebundle_(**kwargs) or {})
            kept = pictures.stored(_html(self.facts, self._draw))
            return {**bundle, "text/plain": str(self.facts), "text/html": kept}

    return View


def _html(facts: Facts, draw: Callable[[Any], str] | None) -> str:
    """The picture, and the facts' table beneath unless the picture brings it."""
    if draw is None:
        return facts._repr_html_()
    drawn = draw(facts)
    if not isinstance(drawn, str):
        raise TypeError(f"draw must return one HTML string, found {type(drawn).__name__}")
    if "<table" in drawn:
        return drawn
    return drawn + facts._repr_html_()


def _control(w: Any, name: str, control: Any, defaults: Mapping[str, Any]) -> Any:
    """ipywidgets' own grammar of abbreviations, with controls that a keyboard can work."""
    made = w.interactive.widget_from_abbrev(control)
    if made is None:
        raise TypeError(f"{name}={control!r} is no control: give a range (0, 4), a list, True, a text or an ipywidget")
    if made is not control:
        look = {"description": name, "style": {"description_width": "initial"}}
        if isinstance(made, (w.IntSlider, w.FloatSlider)):
            kind, low, high = w.IntText if isinstance(made, w.IntSlider) else w.FloatText, made.min, made.max
            room = w.Layout(width=f"{100 + 8 * len(name)}px")
            made = kind(value=made.value, step=made.step, layout=room, tooltip=f"{name}: from {low} to {high}", **look)
            made.min, made.max = low, high  # for _check; no traits, the browser does not know them
        elif isinstance(made, w.Dropdown):
            labels = [label for label, _ in _choices(made)]
            made = w.ToggleButtons(options=made.options, tooltips=[f"{name}: {label}" for label in labels], **look)
            made.style.button_width = "auto"
            made.layout = w.Layout(width="auto", flex_flow="row nowrap", align_items="center")
        elif isinstance(made, w.Checkbox):
            made = w.Checkbox(value=made.value, description=name, indent=False, layout=w.Layout(width="auto"))
        elif isinstance(made, w.Text):
            made = w.Text(value=made.value, continuous_update=False, **look)
        if name in defaults and not isinstance(control, (bool, str, Real)):
            _check(w, name, made, defaults[name])
            made.value = defaults[name]
    return made


def _choices(control: Any) -> list[tuple[str, Any]]:
    options = control.options
    pairs = options.items() if isinstance(options, Mapping) else (o if isinstance(o, tuple) else (str(o), o) for o in options)
    return [(str(label), value) for label, value in pairs]


def _check(w: Any, name: str, control: Any, value: Any) -> None:
    """ValueError unless the control can take the value."""
    whole, numbers = (w.IntText, w.BoundedIntText, w.IntSlider), (w.FloatText, w.BoundedFloatText, w.FloatSlider)
    if isinstance(control, (*whole, *numbers)) and hasattr(control, "min"):
        _check_range(name, value, isinstance(control, whole), control.min, control.max)
    elif hasattr(control, "options"):
        known = [v for _, v in _choices(control)]
        if value not in known:
            raise ValueError(f"{name}={value!r} is no choice: expected one of {', '.join(map(repr, known))}")
    elif isinstance(control, (w.Checkbox, w.ToggleButton)) and not isinstance(value, bool):
        raise ValueError(f"{name}={value!r}: expected True or False")
    elif isinstance(control, (w.Text, w.Textarea)) and not isinstance(value, str):
        raise ValueError(f"{name}={value!r}: expected a text")


def _check_range(name: str, value: Any, whole: bool, low: float, high: float) -> None:
    fits = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not (fits and not math.isnan(value) and low <= value <= high):
        kind = "whole number" if whole else "number"
        raise ValueError(f"{name}={value!r} is out of range: expected a {kind} from {low} to {high}")


def __getattr__(name: str) -> Any:
    if name == "View":
        return _view_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
