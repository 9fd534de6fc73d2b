# From a model to a graph: its arrays by the names of its parameters, a call with a traced batch, and a proof.

"how many samples a trace has: a number that sizes of models seldom are multiples of"
const TRACED_SAMPLES = 101

"""
    traced_graph(model, X) -> Graph

The graph of what a model in inference mode computes of samples like `X`, with its parameters under their names.

# Errors
`ArgumentError` where the model does what has no operation, or asks numbers what to do; and where the graph has other outputs, or another
derivative by the parameters, than the model for these samples.
"""
function traced_graph(@nospecialize(model), X::AbstractArray)
    chain, X = ready(model, X)
    check_outputs(chain, X)
    T = something(number_type(chain), eltype(X))
    only_type([T])
    trace = Tracing{T}(TRACED_SAMPLES)
    tokens = eltype(X) <: Integer
    sample_size = size(X)[1:(end - 1)]
    x = Traced{tokens ? Int : T,ndims(X)}(trace, "x", (sample_size..., trace.n), true)
    network = with_traced_arrays(trace, chain)
    y = traced_call(trace, network, x, "")
    y isa Traced || throw(ArgumentError("the model gives $(y isa Tuple ? "a tuple" : "a $(typeof(y))"); allowed: one array, the samples \
        along its last axis"))
    y.batched && last(size(y)) == trace.n || throw(ArgumentError("the model gives $y for $(trace.n) samples; allowed: an array with one \
        entry for each sample along its last axis"))
    found = graph_of(trace, as_numbers(y), sample_size, tokens)
    prove_equal(found, chain, X)
    return found
end

"""
The model with values of a trace in the place of its parameters; of its other arrays, too, where its structs have one type for both.
"""
function with_traced_arrays(trace::Tracing, @nospecialize(chain::Chain))
    forms = traced_parameters(trace, chain)
    try
        return with_forms(chain, forms)
    catch error
        error isa Union{MethodError,Untraceable} || rethrow()
    end
    for part in parts!(Any[], Base.IdSet{Any}(), chain)
        part isa AbstractArray{<:AbstractFloat} && !haskey(forms, part) && ndims(part) > 0 || continue
        forms[part] = lift(trace, part)
    end
    try
        return with_forms(chain, forms)
    catch error
        error isa InterruptException && rethrow()
        throw(ArgumentError("the model cannot be made with other arrays in the place of its own: $(first_line(error)); allowed: structs \
            whose fields may be any array, as struct Own{A}; W::A; end"))
    end
end

"""
The parameters of a model as values of a trace, by themselves: as model files have them, and those that are tied to them as the same
numbers in another order.
"""
function traced_parameters(trace::Tracing{T}, @nospecialize(chain::Chain)) where {T}
    forms = IdDict{Any,Any}()
    for p in trained(chain)
        array, layer, field = value(p.leaf), type(p.leaf), field_of(p.leaf)
        eltype(array) === T || throw(ArgumentError("$(p.leaf.name) has numbers of type $(eltype(array)), others have $T; allowed: one type, \
            as of f64(chain)"))
        stored = given!(trace.params, trace, p.leaf.name, collect(to_canonical(layer, field, array)))
        forms[array] = as_flux_has_it(stored, layer, field)
        for (other, positions) in p.others
            forms[other] = other_form(forms[array], size(other), positions)
        end
    end
    return forms
end

"the parameter as the layer holds it, whose weight may be turned in the file"
as_flux_has_it(stored::Traced, ::Type, ::Val) = stored
as_flux_has_it(stored::Traced, ::Type{<:Dense}, ::Val{:weight}) = permutedims(stored, (2, 1))
as_flux_has_it(stored::Traced, ::Type{<:Conv}, ::Val{:weight}) = turned_weight(stored)

"numbers of a parameter in another order, as `W'` beside `W`"
function other_form(whole::Traced, dims::Dims, positions::Vector{Int})
    ndims(whole) == 2 && dims == reverse(size(whole)) && positions == vec(permutedims(reshape(1:length(whole), size(whole)))) &&
        return permutedims(whole, (2, 1))
    return reshape(along(vec(whole), 1, positions), dims)
end

"the model with other things in the place of its arrays"
function with_forms(@nospecialize(model), forms::IdDict{Any,Any})
    return Flux.fmap(x -> get(forms, x, x), model; exclude=x -> haskey(forms, x) || Flux.Functors.isleaf(x))
end

first_line(error) = first(split(sprint(showerror, error), '\n'))
function first_line(error::TypeError)
    error.expected === Bool && error.got isa TracedNumber && return "it branches on a number (if, ? :, &&, ||); allowed: ifelse"
    return invoke(first_line, Tuple{Any}, error)
end

"a layer called with a traced batch; nodes know the place in chains that they come from"
function traced_call(trace::Tracing, @nospecialize(chain::Chain), x, path::String)
    for (index, layer) in enumerate(Any[values(chain.layers)...])
        x = traced_call(trace, layer, x, isempty(path) ? "$(index - 1)" : "$path.$(index - 1)")
    end
    return x
end

function traced_call(trace::Tracing, @nospecialize(layer), x, path::String)
    trace.source = path
    try
        return Base.invokelatest(layer, x)
    catch error
        error isa InterruptException && rethrow()
        throw(ArgumentError("layer $path, $(layer isa Function ? "the function $layer" : "a $(kind_of(layer))"), has no translation \
            into a graph: $(first_line(error))"))
    end
end

# What is known of a model of Lux has the same arrays, and is held against the model in the end.
traced_call(trace::Tracing, e::Explicit, x, path::String) = e.same === nothing ? invoke(traced_call, Tuple{Tracing,Any,Any,String}, trace, e, x, path) :
    traced_call(trace, e.same, x, path)

kind_of(@nospecialize(layer)) = nameof(typeof(layer))
kind_of(e::Explicit) = "$(nameof(typeof(e.model))) of Lux"

# Flux's own, which goes through slices in a way that reads numbers.
function Flux.scan(cell, x::Traced, state)
    outputs = Traced[]
    for t in axes(x, 2)
        y, state = cell(x[:, t, ntuple(_ -> Colon(), ndims(x) - 2)...], state)
        push!(outputs, y)
    end
    return stacked(outputs, 2), state
end

"the graph of a trace whose value is `y`"
function graph_of(trace::Tracing{T}, y::Traced, sample_size::Dims, tokens::Bool) where {T}
    nodes, buffers = reached(trace, y.name)
    spec = Dict{String,Any}("format" => first(GRAPH_VERSIONS), "dtype" => lowercase(string(T)), "sample_shape" => Int[reverse(sample_size)...],
        "tokens" => tokens, "params" => first.(trace.params), "buffers" => first.(buffers), "aliases" => Dict{String,String}(),
        "output" => y.name, "nodes" => nodes)
    return graph(JSON.json(spec), Dict{String,Array}([trace.params; buffers]))
end

"refuse a graph that is not equal to its model: outputs for the samples and for more of them, and a derivative by the parameters"
function prove_equal(g::Graph{T}, @nospecialize(chain::Chain), X::AbstractArray) where {T}
    more = X[axes(X)[1:(end - 1)]..., [axes(X, ndims(X)); 1]]
    for samples in (X, more)
        same_values(by_layer(g, samples), by_layer(chain, samples)) || throw(ArgumentError("the graph has other outputs than the model for \
            these samples; allowed: a model that does the same for every sample and every number of them"))
    end
    C = T[cospi(T(3k + 5i) / 7) for k in axes(by_layer(g, X), 1), i in axes(X, ndims(X))]
    theirs = map(trained(chain), pull(chain, X, C)) do p, (name, array)
        name => to_canonical(type(p.leaf), field_of(p.leaf), array)
    end
    # What is 0 in the one may be rounding in the other.
    largest = maximum(maximum(abs, array; init=zero(T)) for (_, array) in theirs; init=zero(T))
    for ((name, array), (_, mine)) in zip(theirs, pull(g, X, C))
        maximum(abs, mine .- array; init=zero(T)) <= sqrt(eps(T)) * largest && continue
        throw(ArgumentError("the graph has another derivative by $name than the model; allowed: a model whose derivatives are those of \
            what it computes"))
    end
end

"the field that holds a leaf, for the layout of its array"
field_of(leaf::Leaf) = leaf.field isa Symbol ? Val(leaf.field) : Val(:none)
