# Where parameters enter a network. Every layer with parameters has a method of `observed`, which shows the place to
# `see`: this is all that the structured kernel needs to know about a layer.

"A place where parameters enter a network; `layer` has methods that say how."
abstract type Site end

"""
    Affine(layer)

Parameters that enter as `z_t = W a_t + b` at positions t. For G groups `inputs(layer, x)` gives the `a` as (p, T, G, n), and
`errors(layer, d)` the derivatives by `z` as (q, T, G, n).
"""
struct Affine{L} <: Site
    layer::L
end

"""
    Elementwise(layer)

Any other way to enter: `gradients(layer, x, d)` gives the per-sample gradients (P, n) of each parameter, from the input and
from the derivative by the tensor that they made.
"""
struct Elementwise{L} <: Site
    layer::L
end

"""
    Table(layer)

A table, of which one column is taken for every token of the input (T, n).
"""
struct Table{L} <: Site
    layer::L
end

"how many parameters enter at a place"
parameter_count(site::Site) = length(fields(site.layer))

"""
    enter(layer, x)

The tensor that a layer's parameters make of `x`.
"""
function enter end

"""
    back(layer, x, d)

The derivative by `x`, from the derivative `d` by what [`enter`](@ref) made of it; that by the parameters is not asked for.
"""
function back end

"""
    observed(layer, x, see)

The layer on a batch, with `see(site, x)` for every tensor that parameters make of an `x`.
"""
observed(layer, x, see) = layer(x)

"nobody looks"
unseen(site::Site, x) = enter(site.layer, x)

"""
    Recorder()

Writes down all sites, their inputs, and the sizes of what they made. Under Zygote it does not differentiate by parameters:
each backward pass leaves the errors of all sites, the derivatives by what they made, in `errors`; `nothing` where the
output does not depend on a site.
"""
struct Recorder
    sites::Vector{Site}
    inputs::Vector{AbstractArray}
    sizes::Vector{Dims}
    errors::Vector{Union{Nothing,Array}}
end
Recorder() = Recorder(Site[], AbstractArray[], Dims[], Union{Nothing,Array}[])

function (r::Recorder)(site::Site, x)
    z = enter(site.layer, x)
    push!(r.sites, site)
    push!(r.inputs, x)
    push!(r.sizes, size(z))
    push!(r.errors, nothing)
    return z
end

function ChainRulesCore.rrule(r::Recorder, site::Site, x)
    z = r(site, x)
    number = length(r.sites)
    function caught(Δ)
        d = unthunk(Δ)
        r.errors[number] = d isa Array ? d : Array(d)
        # No parameters enter before the first site: nobody needs to know what comes to it.
        return NoTangent(), NoTangent(), number == 1 ? NoTangent() : back(site.layer, x, d)
    end
    return z, caught
end

observed(chain::Chain, x, see::Recorder) = foldl((x, layer) -> observed(layer, x, see), chain.layers; init=x)

# One pullback for each layer, in a vector of any: Zygote's code is compiled once for every kind of layer. That of a whole
# chain is compiled for every network, and takes a minute for a deep one.
function ChainRulesCore.rrule(::typeof(observed), chain::Chain, x, see::Recorder)
    backs = Any[]
    for layer in Any[chain.layers...]
        x, layer_back = observed_pullback(layer, x, see)
        push!(backs, layer_back)
    end
    function chain_back(Δ)
        d = foldl(pulled, reverse(backs); init=unthunk(Δ))
        return NoTangent(), NoTangent(), d === nothing ? NoTangent() : d, NoTangent()
    end
    return x, chain_back
end

observed_pullback(layer, x, see) = Zygote.pullback(x -> observed(layer, x, see), x)

pulled(d, layer_back) = only(layer_back(d))
pulled(::Nothing, layer_back) = nothing
