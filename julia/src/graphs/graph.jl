# A network as a graph of operations on named values, as Python's `ub.from_torch(module, x)` makes it.
#
# Every value keeps the axes of the source, in reversed order: the memory of a C-order array (n, a, b) is that of a Julia array
# (b, a, n). So samples are the last axis here, as everywhere in Flux; an axis that the source counts as `k` of `N`, from 0, is
# `N - k` here; and broadcasting, which aligns last axes there, aligns the first ones here, as Julia does.

"an extent of `count` for each sample: windows and heads of attention are often folded into the axis of samples"
struct PerSample
    count::Int
end

"""
    Node

One operation: its `name`, which is that of the value it gives, its `kind` as a `Val`, the places of its inputs among all values
of the graph, its attributes, and the path of the module that it comes from.
"""
struct Node
    name::String
    kind::Val
    inputs::Vector{Int}
    attributes::NamedTuple
    source::String
end

"""
    Input

One input of a graph: its `name`, empty for the only one; the size of one sample; and its `kind`: `:float`, `:bool`, `:token` for
whole numbers that name rows of a table, which count from 1 in Julia, and `:int` for others, as lengths and masks, which are as they
are.
"""
struct Input
    name::String
    sample::Dims
    kind::Symbol
end

operation_name(::Val{name}) where {name} = name

Base.show(io::IO, node::Node) =
    print(io, "node $(node.name) ($(operation_name(node.kind))$(isempty(node.source) ? "" : " in $(node.source)"))")

"""
    Graph

A network of operations on named values, with named parameters: what Python's `ub.from_torch(module, x)` makes of a PyTorch module,
and what [`UDLBridge.load`](@ref) reads from the file of it. It is a function of samples, which are last, `graph(X)`, and a layer
of Flux: `Flux.setup`, `Flux.trainables` and `Flux.withgradient` train it, [`ntk`](@ref), [`input_jacobian`](@ref),
`UDLBridge.jacobian` and so on take it as they take a `Chain`.

Parameters have the names of the source (`"layers.0.conv1.weight"`), and its axes in reversed order: the weight of a linear map,
(out, in) in PyTorch, is (in, out) here, and images are (W, H, C, n). Tokens count from 1 in `X`, as everywhere in Flux.

Of several inputs it is a function of as many arrays, samples last in each: `graph(a, b)` or `graph((a, b))` where the source takes
them by position, `graph(; tokens, mask)` or `graph((; tokens, mask))` where it takes them by name; `X` is then the tuple or the
named tuple, for `ntk` and the others too. Whole numbers that are looked up in a table count from 1; lengths, and masks of 0 and 1,
are as they are. There are no derivatives by them.

Each kind of operation is a method of [`operation`](@ref), compiled once for all graphs; derivatives go from node to node, so that
Zygote never sees a whole network.

- `params`, `buffers`: arrays by name; parameters are trained.
- `names`: of the parameters, in order.
- `inputs`: name, size of one sample and kind of each.
"""
struct Graph{T<:AbstractFloat,P<:AbstractDict,B<:AbstractDict}
    params::P
    buffers::B
    names::Vector{String}
    places::Dict{String,Int}
    nodes::Vector{Node}
    output::Int
    inputs::Vector{Input}
    spec::String
end
Flux.@layer :ignore Graph # its show is below

# By names that are symbols: what goes through the leaves of a state, as `Flux.adjust!` and `Flux.freeze!`, knows named tuples, and
# takes an entry of a Dict for a pair of two more trees.
Flux.Optimisers.trainable(g::Graph) = (; params=by_symbol(g.params))
function Flux.Functors.functor(::Type{<:Graph}, g) # or a gradient, which has the same fields
    again(children) = Graph(by_string(children.params, g.params), by_string(children.buffers, g.buffers), g.names, g.places, g.nodes,
        g.output, g.inputs, g.spec)
    return (; params=by_symbol(g.params), buffers=by_symbol(g.buffers)), again
end

by_symbol(none) = none
function by_symbol(arrays::AbstractDict)
    names = sort!(collect(keys(arrays)))
    return NamedTuple{Tuple(Symbol.(names))}(Tuple(arrays[name] for name in names))
end
by_string(arrays::NamedTuple, before) = isempty(arrays) ? before : Dict(String(name) => array for (name, array) in pairs(arrays))

function Graph(params, buffers, names, places, nodes, output, inputs, spec)
    types = unique(eltype(a) for d in (params, buffers) for a in values(d) if eltype(a) <: AbstractFloat)
    length(types) <= 1 || throw(ArgumentError("the graph has numbers of type $(join(types, " and ")); allowed: one type"))
    T = isempty(types) ? spec_type(spec) : only(types)
    return Graph{T,typeof(params),typeof(buffers)}(params, buffers, names, places, nodes, output, inputs, spec)
end

"`Float32` or `Float64`, as a graph's spec says"
spec_type(spec::AbstractString) = occursin(r"\"dtype\": ?\"float64\"", spec) ? Float64 : Float32

Base.show(io::IO, g::Graph{T}) where {T} =
    print(io, "Graph($(length(g.nodes)) nodes, samples of $(sizes_text(g)), $T, $(sum(length, values(g.params); init=0)) parameters)")

"the size of a sample, or of each of several inputs, in words"
function sizes_text(g::Graph)
    takes_several(g) || return "size $(only(g.inputs).sample)"
    return join(("$(input.name) of size $(input.sample)" for input in g.inputs), ", ")
end

"whether samples are several inputs"
takes_several(g::Graph) = !isempty(first(g.inputs).name)
Base.show(io::IO, ::MIME"text/plain", g::Graph) = show(io, g)

"""
    graph(spec, arrays) -> Graph

The graph that a spec describes: the JSON text of Python's `Graph.spec()`, and arrays by name, with the axes of the source in
reversed order.

# Errors
`ArgumentError` for what is no spec of a graph, operations that this package does not know, and inputs that are not there; it names
the node.
"""
function graph(spec::AbstractString, arrays::AbstractDict)
    found = parsed(spec, () -> throw(ArgumentError("the spec of the graph is no JSON object")))
    part(name, T) = get(found, name, nothing) isa T ? found[name] :
        throw(ArgumentError("the spec of the graph has no $name of the right type; allowed: one that Python's graph.save wrote"))
    names, buffers = String.(part("params", AbstractVector)), String.(part("buffers", AbstractVector))
    T = spec_type(spec)
    params = Dict{String,Array{T}}(name => own_array(arrays, name) for name in names)
    buffer_arrays = Dict{String,Array}(name => own_array(arrays, name) for name in buffers)
    listed = part("nodes", AbstractVector)
    entered = haskey(found, "inputs") ? map(read_input, part("inputs", AbstractVector)) :
        [Input("", size_of(part("sample_shape", AbstractVector)), part("tokens", Bool) ? :token : :float)]
    isempty(entered) && throw(ArgumentError("the graph has no inputs; allowed: at least one"))
    places = Dict{String,Int}(name => place for (place, name) in enumerate([map(value_name, entered); names; buffers]))
    before = length(entered) + length(names) + length(buffers)
    length(places) == before || throw(ArgumentError("a name of the graph stands for two values; allowed: a name for each"))
    nodes = map(node -> read_node(node, places), listed)
    inputs = with_tokens(entered, looked_up(nodes, before, length(entered)))
    output = place_of(places, part("output", AbstractString), "the graph's output")
    return Graph(params, buffer_arrays, names, places, nodes, output, inputs, String(spec))
end

"the size of one sample, from the shape that the source has"
size_of(shape::AbstractVector) = Tuple(Int.(reverse(shape)))

function read_input(given)
    given isa AbstractDict && get(given, "name", "") isa AbstractString && !isempty(get(given, "name", "")) &&
        get(given, "shape", nothing) isa AbstractVector && get(given, "kind", nothing) in ("float", "int", "bool") ||
        throw(ArgumentError("an input of the graph is $(first(string(given), 80)); allowed: name, shape, and the kind float, int or \
            bool"))
    return Input(String(given["name"]), size_of(given["shape"]), Symbol(given["kind"]))
end

"the inputs, of which those are tokens that are looked up in tables"
with_tokens(inputs, found) = map(inputs, found) do input, known
    return Input(input.name, input.sample, known && input.kind === :int ? :token : input.kind)
end

function own_array(arrays, name)
    haskey(arrays, name) || throw(ArgumentError("the graph has no array $name, which its spec names"))
    return collect(arrays[name])
end

function place_of(places, name, of)
    haskey(places, name) ||
        throw(ArgumentError("$of takes $name, which is no value that comes before; allowed: a graph without cycles, in order"))
    return places[name]
end

function read_node(given, places::Dict{String,Int})
    given isa AbstractDict && all(key -> haskey(given, key), ("name", "op", "inputs", "attributes")) ||
        throw(ArgumentError("a node of the graph is $(first(string(given), 80)); allowed: name, op, inputs and attributes"))
    name, kind = String(given["name"]), Val(Symbol(given["op"]))
    attributes = (; (Symbol(key) => attribute(value) for (key, value) in given["attributes"])...)
    inputs = [place_of(places, input, "node $name") for input in given["inputs"]]
    node = Node(name, kind, inputs, attributes, String(get(given, "source", "")))
    known(kind) || throw(ArgumentError("$node: UDLBridge has no such operation"))
    haskey(places, name) && throw(ArgumentError("$node: its name is that of another value"))
    places[name] = length(places) + 1
    return node
end

"whether there is such an operation"
known(kind::Val) = !isempty(methods(operation, Tuple{typeof(kind),Vararg{Any}}))

"an attribute from JSON: lists become tuples, words symbols; JSON has no infinite numbers, so these are words there"
attribute(value) = value
attribute(value::AbstractString) = value == "inf" ? Inf : value == "-inf" ? -Inf : Symbol(value)
attribute(value::AbstractVector) = Tuple(map(attribute, value))
attribute(value::AbstractDict) = PerSample(value["per_sample"])

"""
    Batch{T}(n)

What an operation has to know besides its inputs: the type of the graph's numbers, and how many samples there are.
"""
struct Batch{T<:AbstractFloat}
    n::Int
end

"""
    operation(Val(kind), batch, attributes, inputs...) -> array

The value of one operation of a graph, for the inputs with the axes of the source reversed; attributes are named and counted as in
the source, from 0. Python's `docs/operations.md` has the table of what each kind means. A new kind is a new method, which Zygote
differentiates; where that is slow to compile, or would break ties in another way, there is a method of [`node_pullback`](@ref) too.
"""
function operation end

"""
    node_pullback(Val(kind), batch, attributes, inputs...) -> value, back

The value of one operation, and the function from a cotangent of the value to those of the inputs, `nothing` for one that has none;
one that costs something may be a thunk (ChainRules), since not all of them are wanted.
"""
function node_pullback(kind::Val, batch::Batch, attributes, inputs...)
    return Zygote.pullback((xs...) -> operation(kind, batch, attributes, xs...), inputs...)
end

"the axis that the source counts as `k`, from 0, of an array"
axis(x::AbstractArray, k::Integer) = ndims(x) - k
axis(x::AbstractArray, k::Tuple) = ndims(x) .- k

"the size that a shape of the source has for a batch"
extents(batch::Batch, shape::Tuple) = reverse(map(extent -> extent isa PerSample ? extent.count * batch.n : Int(extent), shape))

"a broadcast over arrays without axes gives a number, where a graph has an array without axes"
as_array(x::AbstractArray) = x
as_array(x::Number) = fill(x)

"""
    unbroadcast(d, size)

The sum of what came back over the axes that were broadcast from `size`.
"""
function unbroadcast(d::AbstractArray, dims::Dims)
    size(d) == dims && return d
    over = Tuple(k for k in 1:ndims(d) if k > length(dims) || (dims[k] == 1 && size(d, k) != 1))
    return reshape(isempty(over) ? d : sum(d; dims=over), dims)
end
