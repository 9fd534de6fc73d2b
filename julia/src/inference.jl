"""
    inference(chain) -> Chain

The chain in inference mode, with the same arrays. The chain itself keeps its mode: whoever asks for a kernel in the course
of a training goes on with the training as before.

# Errors
`ArgumentError` for a chain that has no kernel of its own in this sense: a `BatchNorm` or `Dropout` that was put into
training mode (`Flux.trainmode!`), whose samples touch each other or whose outputs are random; a `BatchNorm` that keeps no
statistics; an array that two layers share, whose gradient is the sum over its places; a `Parallel` that is not one of two
branches.
"""
function inference(chain::Chain)
    check_shared(leaves(chain))
    modes = Any[]
    visit(layer -> has_mode(layer) && push!(modes, layer), chain)
    foreach(check_inference, modes)
    all(layer -> layer.active === false, modes) && return chain
    leaf(layer) = has_mode(layer) || Flux.Functors.isleaf(layer)
    return Flux.fmap(at_rest, chain; exclude=leaf)
end

"whether a layer computes something else in training"
has_mode(layer) = false
has_mode(::Union{BatchNorm,Dropout}) = true

"the layer in inference mode"
at_rest(layer) = layer
at_rest(l::BatchNorm) = BatchNorm(l.λ, l.β, l.γ, l.μ, l.σ², l.ϵ, l.momentum, l.affine, l.track_stats, false, l.chs)
at_rest(d::Dropout) = Dropout(d.p, d.dims, false, d.rng)

"call `f` with the layer and with all layers inside"
function visit(f, layer)
    f(layer)
    foreach(((_, child, _),) -> visit(f, child), children(layer))
end

"refuse a layer whose samples touch each other; `path` says where it is, if that is known"
function check_inference(layer, path="")
    place = "$(isempty(path) ? "a" : "layer $path, a") $(nameof(typeof(layer)))"
    layer.active === true && throw(ArgumentError("$place is in training mode; use Flux.testmode!(chain)"))
    layer isa BatchNorm && !layer.track_stats || return nothing
    throw(ArgumentError("$place is without statistics: it has no inference mode"))
end

"refuse an array that is a parameter, or a buffer, in two places"
function check_shared(arrays)
    seen = IdDict{Any,String}()
    for leaf in arrays
        other = get!(seen, value(leaf), leaf.name)
        other == leaf.name && continue
        throw(ArgumentError("$(leaf.name) and $other are one shared array; copies would have another kernel"))
    end
end

"refuse names that are none of the chain's parameters: a kernel over them would be zero"
function check_names(chain::Chain, names)
    known = first.(parameters(chain))
    unknown = setdiff(names, known)
    isempty(unknown) && return names
    throw(ArgumentError("the chain has no parameters $(join(unknown, ", ")); it has $(join(known, ", "))"))
end
