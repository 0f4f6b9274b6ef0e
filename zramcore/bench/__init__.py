"""What `zramcore bench` measures: the same work on several sides, in one process, taking turns.

`data` is what is worked on, `rounds` lets the sides take turns, `rows` makes medians and ratios of their times,
`table` and `plot` show them. `loops` is the bare codec, the limit of what any device can reach; `block` the sides that
are devices, `kernel_zram` the kernel's. The other modules are the works, one for each subcommand.
"""
