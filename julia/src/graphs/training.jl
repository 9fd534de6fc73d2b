# Training of a graph: one pass forward for the loss, and one back from its derivative by the outputs.

"the parameters of a graph, in the order of their names; one that several nodes take is there once"
trained(g::Graph) = [Parameter(Leaf(name, g.params, name, [], (nothing, "")), []) for name in g.names]

function value_and_gradient(loss, g::Graph, x::AbstractArray, y; own=trained(g), see=nothing)
    tape = parameter_tape(g, x)
    f = flat_output(g, tape.values)
    found, (slope,) = Flux.withgradient(f -> loss(f, y), f)
    return found, [filled(part, value(p.leaf)) for (p, part) in zip(own, pull_back(tape, slope))]
end

"the functions that losses of logits apply themselves, by the operations that they are in a graph"
const ENDINGS = Dict{Symbol,Any}(:softmax => NNlib.softmax, :log_softmax => NNlib.logsoftmax, :sigmoid => NNlib.sigmoid)

"the function of [`ENDINGS`](@ref) whose values are the outputs of a graph, or `nothing`"
function ending_of(g::Graph)
    g.output > given_values(g) || return nothing
    return get(ENDINGS, operation_name(g.nodes[g.output - given_values(g)].kind), nothing)
end

Training(g::Graph, X::Arrays, Y, loss; keep...) = Training(g, samples(g, X), Y, loss; keep...)
loss_gradient(loss, g::Graph, X::Arrays, Y) = loss_gradient(loss, g, samples(g, X), Y)
