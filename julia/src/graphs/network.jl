# A graph in the place of a chain: what `ntk`, `outputs`, `jacobian` and the others ask of a network.

(g::Graph)(X::AbstractArray) = evaluate(g, zero_based(g, X))[g.output]
(g::Graph)(X::Arrays) = g(samples(g, X))
(g::Graph)(first::AbstractArray, second::AbstractArray, more::AbstractArray...) = g((first, second, more...))
(g::Graph)(; inputs...) = g(NamedTuple(inputs))

"the samples as this package counts and cuts them: one array, or those of several inputs"
samples(g::Graph, X::AbstractArray) = X
samples(g::Graph, X::Arrays) = takes_several(g) ? several(g.inputs, X) :
    throw(ArgumentError("X has $(length(X)) inputs; allowed: one array, of samples of $(sizes_text(g))"))

"tokens as a graph counts them, from 0"
zero_based(g::Graph, X::AbstractArray) = only(g.inputs).kind === :token ? X .- 1 : X
zero_based(g::Graph, X::Several) = each_input((input, a) -> input.kind === :token ? a .- 1 : a, g, X)

"samples of which every input is changed"
each_input(f, g::Graph, X::Several) = Several(NamedTuple{keys(X.arrays)}(Tuple(map(f, g.inputs, collect(Any, X.arrays)))))

"Zygote sees a whole graph as one function, and so does every other package that takes rules from ChainRules."
function ChainRulesCore.rrule(g::Graph, X::AbstractArray)
    y, back = with_back(g, X)
    function graph_back(d)
        by_graph, by_inputs = back(d)
        return by_graph, only(by_inputs)
    end
    return y, graph_back
end

function ChainRulesCore.rrule(g::Graph, X::Arrays)
    y, back = with_back(g, samples(g, X))
    function graph_back(d)
        by_graph, by_inputs = back(d)
        by_inputs = NamedTuple{Tuple(Symbol(input.name) for input in g.inputs)}(Tuple(by_inputs))
        return by_graph, X isa NamedTuple ? Tangent{typeof(X)}(; by_inputs...) :
            Tangent{typeof(X)}((by_inputs[Symbol(k - 1)] for k in eachindex(X))...)
    end
    return y, graph_back
end

function ChainRulesCore.rrule(g::Graph, first::AbstractArray, second::AbstractArray, more::AbstractArray...)
    y, back = ChainRulesCore.rrule(g, (first, second, more...))
    function graph_back(d)
        by_graph, by_inputs = back(d)
        return by_graph, by_inputs...
    end
    return y, graph_back
end

"f(X), and the function from a cotangent of it to those of the graph and of each of its inputs"
function with_back(g::Graph, X::AbstractArray)
    tape = Tape(g, zero_based(g, X), [eachindex(g.inputs); [g.places[name] for name in g.names]])
    function back(d)
        found = pull_back(tape, unthunk(d))
        by_inputs = map((input, part) -> input.kind === :float ? something(part, ZeroTangent()) : NoTangent(), g.inputs, found)
        params = Dict{String,Any}(name => part for (name, part) in zip(g.names, found[(length(g.inputs) + 1):end]))
        return Tangent{typeof(g)}(; params), by_inputs
    end
    return tape.values[g.output], back
end

"""
    ready(graph, X) -> graph, X

The samples in the type of the graph's numbers; tokens stay integers.

# Errors
`ArgumentError` where there is no sample, and for samples of another size than those that the graph was made with.
"""
function ready(g::Graph, X::AbstractArray)
    takes_several(g) && throw(ArgumentError("X is one array; allowed: $(input_words([input.name for input in g.inputs]))"))
    sample = only(g.inputs).sample
    ndims(X) > 0 && size(X, ndims(X)) > 0 && size(X)[1:(end - 1)] == sample || throw(ArgumentError("X of size $(size(X)); \
        allowed: ($(join([sample..., "n"], ", "))), as the graph's example had it, with n of at least 1"))
    return g, in_numbers(g, X)
end
ready(g::Graph{T}, X::Several) where {T<:AbstractFloat} = g, each_input((input, a) -> in_kind(T, input.kind, a), g, X)

"an array of an input in the type that the graph computes in"
in_kind(::Type{T}, kind, a) where {T} = kind === :float ? (eltype(a) === T ? a : T.(a)) : a isa Array ? a : collect(a)

number_type(::Graph{T}) where {T} = T
numbers(::Type{<:Graph{T}}) where {T} = T
takes_tokens(g::Graph) = takes_several(g) || only(g.inputs).kind === :token

"the spec with the type that the numbers have now, as `f32(graph)` may have changed it"
spec_text(g::Graph{T}) where {T} = replace(g.spec, r"(\"dtype\": ?)\"float[0-9]+\"" => SubstitutionString("\\1\"$(lowercase(string(T)))\""))

parameters(g::Graph) = [name => g.params[name] for name in g.names]

by_layer(g::Graph, X) = flat_samples(g(X))

"the tape of a batch, for the parameters by name, or for the samples"
parameter_tape(g::Graph, X, names=g.names) = Tape(g, zero_based(g, X), Int[g.places[name] for name in names])
input_tape(g::Graph, X) = Tape(g, zero_based(g, X), [1])

"blocks (size(parameter)..., K, n) for the K cotangents of the batch"
function per_sample(g::Graph{T}, X::AbstractArray, seeds, names::Vector{String}=g.names) where {T}
    n = size(X, ndims(X))
    blocks = [Array{T}(undef, size(g.params[name])..., length(seeds), n) for name in names]
    for i in 1:n
        tape = parameter_tape(g, sample(X, i), names)
        for (k, seed) in enumerate(seeds)
            foreach((block, found) -> store!(block, found, k, i), blocks, pull_back(tape, sample(seed, i)))
        end
    end
    return Pair{String,Array{T}}[name => block for (name, block) in zip(names, blocks)]
end

function jacobian(g::Graph, X::AbstractArray; adtype=nothing)
    own_rules(adtype)
    g, X = ready(g, X)
    return per_sample(g, X, cotangents(Full(), check_outputs(g, X, size(X, ndims(X)))))
end

"the outputs of a graph, (O, n); that samples do not touch each other was seen where it was made"
check_outputs(g::Graph, X::AbstractArray, n=1) = similar_outputs(by_layer(g, sample(X, 1)), n)
similar_outputs(y, n) = similar(y, size(y, 1), n)

function input_jacobian(g::Graph, X::AbstractArray)
    g, X = ready(g, X)
    takes_tokens(g) && throw(ArgumentError("the graph takes tokens, or several inputs, which have no derivative"))
    tape = input_tape(g, X)
    y = flat_output(g, tape.values)
    result = zeros(eltype(y), size(X)[1:(end - 1)]..., size(y)...)
    for (k, seed) in enumerate(cotangents(Full(), y))
        found = only(pull_back(tape, seed))
        found === nothing || copyto!(selectdim(result, ndims(result) - 1, k), found)
    end
    return result
end

function pull(g::Graph, X::AbstractArray, C::AbstractMatrix)
    g, X = ready(g, X)
    found = pull_back(parameter_tape(g, X), C)
    return [name => (part === nothing ? zero(array) : part) for ((name, array), part) in zip(parameters(g), found)]
end

function push(g::Graph{T}, X::AbstractArray, direction::AbstractVector, C::AbstractMatrix) where {T}
    g, X = ready(g, X)
    isempty(direction) && return zeros(T, size(C, 2))
    return push_by_sample(g, X, direction, C)
end

"a graph has rules of its own, of every operation"
function own_rules(adtype)
    adtype isa Union{Nothing,AutoZygote} ||
        throw(ArgumentError("adtype = $(repr(adtype)) with a Graph, whose operations have pullbacks of their own; allowed: AutoZygote()"))
end

function factors(g::Graph, X::AbstractArray, r::Reduction, method, params=g.names, adtype=nothing)
    own_rules(adtype)
    g, X = ready(g, X)
    check_names(g, params)
    method in (:structured, :plain) ||
        throw(ArgumentError("method = $(repr(method)); allowed: :structured, :plain"))
    method === :structured && return structured_factors(g, X, r, params)
    n = size(X, ndims(X))
    seeds = cotangents(r, check_outputs(g, X, n))
    names = filter(in(params), g.names)
    return Summand[Summand([name], Factor(nothing, reshape(block, :, length(seeds), n))) for
        (name, block) in per_sample(g, X, seeds, names)]
end

# Several inputs, where there is one array else.

outputs(g::Graph, X::Arrays) = outputs(g, samples(g, X))
jacobian(g::Graph, X::Arrays; keep...) = jacobian(g, samples(g, X); keep...)
input_jacobian(g::Graph, X::Arrays) = input_jacobian(g, samples(g, X))
input_hessian(g::Graph, X::Arrays) = input_hessian(g, samples(g, X))
pull(g::Graph, X::Arrays, C::AbstractMatrix) = pull(g, samples(g, X), C)
push(g::Graph, X::Arrays, direction::AbstractVector, C::AbstractMatrix) = push(g, samples(g, X), direction, C)
ntk(g::Graph, X::Arrays, X2=nothing; keep...) = ntk(g, samples(g, X), X2 === nothing ? nothing : samples(g, X2); keep...)
