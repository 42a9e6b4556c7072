"""The look of a profile's page: the colours and measures of edgenn's other pages, without their pictures."""

CSS = """\
:root {
  --paper: #f6f7f9; --sheet: #ffffff; --ink: #1f2430; --faint: #5b6472; --line: #e3e6eb;
  --accent: #0072b2; --bar: #cfe3f1; --wrong: #b34700; --pale: #7fb2d0; --dropped: #b9c0ca; --other: #009e73;
  --shade: #0003;
  color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171c; --sheet: #1d2128; --ink: #e7e9ee; --faint: #a0a8b5; --line: #323842;
    --accent: #56b4e9; --bar: #1f4a66; --wrong: #f0a35e; --pale: #3d7fa3; --dropped: #59606c; --other: #2fbf94;
    --shade: #000a;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
body > * { max-width: 62rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; padding-bottom: .5rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 0 0 .9rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .5rem; }
p { margin: .4rem 0 .9rem; max-width: 52rem; overflow-wrap: anywhere; }
.faint, figcaption { color: var(--faint); font-size: .875rem; }
.warning { border-left: .25rem solid var(--wrong); padding: .5rem .9rem; background: var(--sheet); font-weight: 600; }
section {
  background: var(--sheet); border: 1px solid var(--line); border-radius: .75rem;
  padding: 1.25rem; margin: 1.25rem 0; overflow: hidden;
}
section > :last-child { margin-bottom: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: 1rem 1.5rem; margin: 0; }
.tiles dt { color: var(--faint); font-size: .875rem; }
.tiles dd { margin: 0; }
.value { font-size: 1.5rem; font-weight: 650; line-height: 1.25; font-variant-numeric: tabular-nums; }
/* A shadow at the side where a table or figure goes on: its covers move with that, it does not. */
.scroll, figure {
  overflow-x: auto; margin: 0 0 1rem;
  background: linear-gradient(to right, var(--sheet) 40%, transparent) 0 0 / 2rem 100% no-repeat local,
    linear-gradient(to left, var(--sheet) 40%, transparent) 100% 0 / 2rem 100% no-repeat local,
    linear-gradient(to right, var(--shade), transparent) 1px 0 / .75rem 100% no-repeat,
    linear-gradient(to left, var(--shade), transparent) calc(100% - 1px) 0 / .75rem 100% no-repeat;
}
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9375rem; }
th, td { text-align: left; padding: .35rem 1.25rem .35rem 0; border-bottom: 1px solid var(--line); }
th:last-child, td:last-child { padding-right: 0; }
tbody tr:last-child > * { border-bottom: 0; }
thead th { color: var(--faint); font-weight: 500; font-size: .875rem; white-space: nowrap; }
tbody th { font-weight: 500; overflow-wrap: anywhere; min-width: 8rem; }
td.number, th.number { text-align: right; white-space: nowrap; }
td.words { min-width: 9rem; overflow-wrap: anywhere; }
td.bar { min-width: 5rem; width: 20%; }
td.bar > span {
  display: block; padding: .05rem .4rem; border-radius: .25rem;
  background: linear-gradient(var(--bar), var(--bar)) no-repeat; background-size: var(--share) 100%;
}
figcaption { margin-top: .5rem; }
svg { display: block; width: 100%; min-width: 36rem; height: auto; font-size: 14px; fill: var(--ink); }
svg .faint { fill: var(--faint); font-size: 13px; }
svg .bar, svg .invoke, svg .dot { fill: var(--accent); }
svg .dot { fill-opacity: .75; }
svg .light, svg .preprocess { fill: var(--pale); }
svg .capture { fill: var(--bar); stroke: var(--pale); }
svg .decide, svg .sink { fill: var(--other); }
svg .dropped { fill: var(--dropped); }
svg .mark { stroke: var(--wrong); stroke-dasharray: 4 3; }
svg .axis, svg .grid { stroke: var(--line); }
svg .roof { fill: none; stroke: var(--wrong); stroke-width: 2; }
svg .on { font-size: 12px; fill: var(--ink); }
svg .invoke + .on { fill: var(--sheet); }
footer { color: var(--faint); font-size: .8125rem; padding-top: .25rem; padding-bottom: 2.5rem; }
@media (max-width: 30rem) {
  body > * { padding-left: .75rem; padding-right: .75rem; }
  header { padding-top: 1.5rem; }
  section { padding: 1rem; }
  table { font-size: .875rem; }
  th, td { padding-right: .75rem; }
}
"""
