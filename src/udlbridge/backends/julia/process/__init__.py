"""Julia in a process of its own, which a program starts, asks, and outlives; what it needs of Julia is a service.

The process (`worker`) makes a service and takes its calls; whoever calls (`client`) has found or started it
(`starting`) through its folder (`folders`), and shown that both are of one kind (`identity`). What they say to each
other are pickles on a socket, with the arrays beside them in memory that both see (`channel`, `blocks`).
"""
