# What Python calls: arrays with reversed axes and a spec in, arrays with reversed axes out. No computation here.
# The names are not exported; from Julia, use `build`, `ntk`, `jacobian` and so on.

"a chain from the spec's JSON text and two parallel lists, names and canonical arrays with reversed axes"
function bridge_build(spec::AbstractString, names, arrays)
    params = Dict{String,AbstractArray}(String(name) => array for (name, array) in zip(names, arrays))
    return build(String(spec), params)
end

"the spec, as JSON text, of a chain that a user has in Julia, with the names and canonical arrays (axes reversed)"
function bridge_model(@nospecialize(chain))
    model = from_flux(chain)
    return JSON.json(model.spec), first.(model.params), last.(model.params)
end

"the same for any model, which is a graph of what it computes of samples like `X`"
function bridge_model(@nospecialize(model), X::AbstractArray)
    found = from_flux(model, received(X))
    arrays = [parameters(found); collect(found.buffers)]
    return spec_text(found), first.(arrays), last.(arrays)
end

"what Python describes: layers, or a graph; a user's own model may be anything that is callable, see `guests.jl`"
const Network = Union{Chain,Graph}

"a graph from its spec's JSON text and two parallel lists, names and arrays with reversed axes"
function bridge_graph(spec::AbstractString, names, arrays)
    # An array without axes comes as a number.
    return graph(spec, Dict{String,Any}(String(name) => as_array(array) for (name, array) in zip(names, arrays)))
end

bridge_outputs(@nospecialize(network), X) = outputs(network, received(network, X))

"samples as Julia's own array, so that BLAS sees it; tokens count from 0 there and from 1 here"
received(X::AbstractArray) = Array(X)
received(X::AbstractArray{<:Integer}) = Array(X) .+ 1
received(@nospecialize(network), X::AbstractArray) = received(X)

"of several inputs, arrays in the order of the graph, whose names Python has checked"
function received(g::Graph, X::Tuple)
    arrays = map((input, a) -> input.kind === :token ? received(a) : Array(a), g.inputs, collect(Any, X))
    return Several(NamedTuple{Tuple(Symbol(input.name) for input in g.inputs)}(Tuple(arrays)))
end

bridge_input_jacobian(@nospecialize(network), X) = input_jacobian(network, received(network, X))

bridge_input_hessian(@nospecialize(network), X) = input_hessian(network, received(network, X))

bridge_signals(@nospecialize(chain::Network), X, Y::AbstractArray) = signals(chain, received(chain, X), Array(Y))

"steps from JSON rows (operation, arguments from 0, setting) and the constants in their order"
function bridge_steps(rows::AbstractString, constants)
    left = Iterators.Stateful(constants)
    return map(JSON.parse(rows)) do (operation, arguments, setting)
        value = operation == "constant" ? Array(popfirst!(left)) : nothing
        offset = operation in ("item", "column") ? 1 : 0
        Step(Symbol(operation), Int.(arguments) .+ 1, value isa Array{<:Any,0} ? only(value) : value, setting + offset)
    end
end

bridge_program_value(rows, constants, x::AbstractArray) = fill_scalar(program_value(bridge_steps(rows, constants), Array(x)))
bridge_program_gradient(rows, constants, x::AbstractArray) = program_gradient(bridge_steps(rows, constants), Array(x))

"a number as an array without axes: the form in which results go to Python"
fill_scalar(value::Number) = fill(value)
fill_scalar(value::AbstractArray) = value

"the blocks of `jacobian` in the order of `parameters`, in the canonical layout"
function bridge_jacobian(@nospecialize(network), X)
    return bridge_canonical(network, last.(jacobian(network, received(network, X))))
end

"J' c in the order of `parameters`, in the canonical layout, from cotangents (O, n)"
function bridge_pull(@nospecialize(network), X, cotangents::AbstractMatrix)
    return bridge_canonical(network, last.(pull(network, received(network, X), Array(cotangents))))
end

"<c_i, (J w)_i> (n), from a direction in the order of `parameters`, in the canonical layout with reversed axes"
function bridge_push(@nospecialize(network), X, direction, cotangents::AbstractMatrix)
    return push(network, received(network, X), bridge_own(network, direction), Array(cotangents))
end

"arrays in the order of `parameters`, from the canonical layout to Flux's"
bridge_own(::Graph, arrays) = map(array -> collect(as_array(array)), arrays) # one without axes comes as a number
function bridge_own(@nospecialize(model), arrays)
    return [from_canonical(type(p.leaf), Val(p.leaf.field), array) for (p, array) in zip(trained(as_chain(model)), arrays)]
end

"`outputs` as this package writes it"
bridge_choice(outputs::Integer) = outputs
bridge_choice(outputs::AbstractString) = Symbol(outputs)
bridge_choice(outputs) = Int.(outputs)

"factors, with the reduction that they were made for: one value for Python to hold"
struct Prepared{R<:Reduction}
    reduction::R
    summands::Vector{Summand}
end

"`outputs` is a name, an output counted from 1, or a list of them; `params` are the names of the parameters that count"
function bridge_prepare(@nospecialize(network), X, outputs, n_outputs::Integer, method::AbstractString, params)
    r = reduction(bridge_choice(outputs), n_outputs)
    return Prepared(r, factors(network, received(network, X), r, Symbol(method), Set{String}(String.(params))))
end

"empty factors that are no longer needed; returns how many bytes the garbage collector can now reclaim"
function bridge_release(p::Prepared)
    bytes = Base.summarysize(p.summands)
    empty!(p.summands)
    return bytes
end

"run the garbage collector; returns nothing"
bridge_collect() = GC.gc()

"""
    bridge_fill(T, address, dims, left, rows, right, cols, params, lower)

Fill the rectangle into memory that Python owns: `dims` elements from `address` on, of the type of the factors. `rows`
and `cols` are (first, last), counted from 1. `params` are the names of the parameters whose share is wanted: those of whole
layers, among those that the factors were made for.
"""
function bridge_fill(::Type{T}, address::Integer, dims, left::Prepared, rows, right::Prepared, cols, params,
    lower::Bool) where {T}
    target = unsafe_wrap(Array, Ptr{T}(UInt(address)), Tuple(Int.(dims)))
    names = Set{String}(String.(params))
    own, other = (filter(s -> any(in(names), s.names), p.summands) for p in (left, right))
    rectangle!(target, left.reduction, own, rows[1]:rows[2], other, cols[1]:cols[2]; lower)
    return nothing
end

"arrays in the order of `parameters`, from Flux's layout to the canonical one"
bridge_canonical(::Graph, arrays) = arrays
function bridge_canonical(@nospecialize(model), arrays)
    return [to_canonical(type(p.leaf), Val(p.leaf.field), array) for (p, array) in zip(trained(as_chain(model)), arrays)]
end

"targets, or targets and slopes, as Julia's own arrays"
targets(Y::AbstractArray) = Array(Y)
targets(Y) = Observed(Array(Y[1]), Array(Y[2]))

"the loss of a batch, and its gradients in the order of `parameters`, in the canonical layout"
function bridge_loss_gradient(@nospecialize(chain::Network), X, Y, loss::AbstractString, weight::Real)
    value, gradients = loss_gradient(loss_function(loss, weight), chain, received(chain, X), targets(Y))
    return Float64(value), bridge_canonical(chain, gradients)
end

"""
    bridge_training(chain, X, Y, loss, weight, optimiser, names, values, rates, clip_norm)

A [`Training`](@ref) of `chain`, in place. `weight` is that of slopes in the loss. `names` and `values` are the optimiser's
settings; a `clip_norm` of 0 means none.
"""
function bridge_training(@nospecialize(chain::Network), X, Y, loss, weight, name, names, values, rates, clip_norm)
    settings = Dict{String,Float64}(String(key) => value for (key, value) in zip(names, values))
    rule = optimiser(Symbol(name), settings)
    limit = iszero(clip_norm) ? nothing : Float64(clip_norm)
    known = loss_function(String(loss), weight)
    return Training(chain, received(chain, X), targets(Y), known; optimiser=rule, rates, clip_norm=limit)
end

"resume after `step` steps: `arrays` are the canonical arrays of the first slot, then of the second"
function bridge_resume(t::Training, slot_names, arrays, step::Integer)
    keys = Tuple(Symbol(name) for name in slot_names)
    count = length(t.own)
    by_slot = [bridge_own(t.chain, arrays[((k - 1) * count + 1):(k * count)]) for k in eachindex(keys)]
    resume!(t, [NamedTuple{keys}(Tuple(getindex.(by_slot, index))) for index in 1:count], step)
    return nothing
end

"one epoch; `order` counts from 0, as in Python"
function bridge_epoch(t::Training, order, batch_size::Integer, factor::Real)
    return epoch!(t, Array(order) .+ 1, batch_size, factor)
end

"canonical parameters, then canonical arrays of every slot by its name, then the number of steps"
function bridge_state(t::Training)
    remembered = [slots(leaf.rule, leaf.state) for leaf in t.optimiser_leaves]
    by_slot = Dict(string(key) => bridge_canonical(t.chain, getproperty.(remembered, key)) for key in keys(first(remembered)))
    return bridge_canonical(t.chain, last.(parameters(t.chain))), by_slot, t.step
end

"let BLAS use all cores of the machine (Julia's default is half of them), unless the environment says otherwise"
function bridge_start()
    said = any(name -> haskey(ENV, name), ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS"))
    said || BLAS.set_num_threads(Sys.CPU_THREADS)
    return nothing
end

"set the number of BLAS threads; returns the previous one"
function bridge_threads(n::Integer)
    before = BLAS.get_num_threads()
    BLAS.set_num_threads(n)
    return before
end

"versions of Julia and of the packages that compute, by name"
function bridge_versions()
    return Dict("julia" => string(VERSION), "Flux" => string(pkgversion(Flux)), "Zygote" => string(pkgversion(Zygote)),
        "NNlib" => string(pkgversion(NNlib)), "UDLBridge" => string(pkgversion(UDLBridge)))
end
