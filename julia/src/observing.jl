# Where parameters enter a network: at its sites. A layer with a method of `observed` shows its sites to `see`: this is all
# that the structured kernel needs to know about it. Any other layer with parameters is one site as a whole.

const Convolution = Union{Conv,CrossCor}

"A site, where parameters enter a network; `layer` has methods that say how."
abstract type Site end

"""
    Affine(layer)

Parameters that enter as `z_t = W a_t + b` at positions t. For G groups `inputs(layer, x)` gives the `a` as (p, T, G, n), and
`errors(layer, d)` the derivatives with respect to `z` as (q, T, G, n).
"""
struct Affine{L} <: Site
    layer::L
end

"""
    Elementwise(layer)

Any other way to enter: `gradients(layer, x, d)` gives the per-sample gradients (P, n) of each parameter, from the input and
from the derivative with respect to what the parameters made of it.
"""
struct Elementwise{L} <: Site
    layer::L
end

"""
    Whole(layer)

A layer as a whole, with its activation and all that is inside: its own Zygote pullbacks are taken, one for each sample.
"""
struct Whole{L} <: Site
    layer::L
end

"""
    Table(layer)

A table, of which one column is taken for every token of the input (T, n).
"""
struct Table{L} <: Site
    layer::L
end

"the arrays that enter at a site, in the order of their names"
arrays(site::Site) = map(value, leaves(site.layer))

"""
    enter(layer, x)

The tensor that a layer's parameters make of `x`.
"""
enter(layer, x) = layer(x)
enter(site::Site, x) = enter(site.layer, x)
enter(site::Whole, x) = site.layer(x)

"""
    back(layer, x, d)

The derivative with respect to `x`, from the derivative `d` with respect to what [`enter`](@ref) made of it; those with respect
to the parameters are not needed.
"""
back(layer, x, d) = only(last(Zygote.pullback(layer, x))(d))
back(site::Site, x, d) = back(site.layer, x, d)
back(site::Whole, x, d) = only(last(Zygote.pullback(site.layer, x))(d))

"the per-sample gradients (P, n) of each parameter of a layer; see [`Elementwise`](@ref)"
gradients(layer, x, d) = own_gradients(layer, x, d)
gradients(site::Site, x, d) = gradients(site.layer, x, d)
gradients(site::Whole, x, d) = own_gradients(site.layer, x, d)

"the same, from Zygote pullbacks of the layer as a whole"
function own_gradients(layer, x, d)
    own = [Parameter(leaf, []) for leaf in leaves(layer)] # each by itself, though some may be tied
    return map(block -> reshape(last(block), :, size(d, ndims(d))), per_sample(layer, x, [d], own))
end

"""
    observed(layer, x, see)

The layer on a batch, with `see(site, x)` for every tensor that parameters make of an `x`. The sites hold the arrays of the
layer's [`leaves`](@ref), each once and in their order, and what comes out is `layer(x)`; a layer of which this is not so is
taken as one site instead, with a warning.
"""
observed(layer, x, see) = has_parameters(layer) ? see(Whole(layer), x) : layer(x)

has_parameters(@nospecialize(layer)) = !isempty(leaves(layer))
@non_differentiable has_parameters(::Any)

"no observer: what the site makes of `x`, and nothing else"
unseen(site::Site, x) = enter(site, x)

"Looks on while a batch goes forward and backward through a network; see [`observed_pullback`](@ref)."
abstract type Observer end

"""
    Recorder(whole = IdDict())

Records all sites, their inputs, and the sizes of their outputs. Under Zygote it does not differentiate with respect to
parameters: each backward pass leaves the errors of all sites, the derivatives with respect to their outputs, in `errors`;
`nothing` where the network's output does not depend on a site. `whole` keeps of every layer whether it is taken as one site
([`one_site`](@ref)), so that all passes through a network see the same sites.
"""
struct Recorder <: Observer
    whole::IdDict{Any,Bool}
    sites::Vector{Site}
    inputs::Vector{Any} # arrays, or a tuple of them for a layer that takes several
    sizes::Vector{Union{Nothing,Dims}} # `nothing` where what enters, or comes out, is no array
    errors::Vector{Union{Nothing,Array}}
end
Recorder(whole=IdDict{Any,Bool}()) = Recorder(whole, Site[], Any[], Union{Nothing,Dims}[], Union{Nothing,Array}[])

function (r::Recorder)(site::Site, x)
    z = enter(site, x)
    push!(r.sites, site)
    push!(r.inputs, x)
    push!(r.sizes, x isa AbstractArray && z isa AbstractArray ? size(z) : nothing)
    push!(r.errors, nothing)
    return z
end

function ChainRulesCore.rrule(r::Recorder, site::Site, x)
    z, caught = shown(r, site, x)
    function site_back(Δ)
        d = caught(Δ)
        return NoTangent(), NoTangent(), d === nothing ? NoTangent() : d
    end
    return z, site_back
end

"what a site makes of `x`, and its pullback, which leaves the error in the recorder and gives that of `x`"
function shown(r::Recorder, site::Site, x)
    z = r(site, x)
    number = length(r.sites)
    function caught(Δ)
        d = unthunk(Δ)
        r.errors[number] = d isa Array ? d : Array(d)
        # No parameters enter before the first site: its derivative with respect to `x` is not needed.
        return number == 1 ? nothing : back(site, x, d)
    end
    return z, caught
end

"""
    one_site(layer, x, see::Recorder)

Whether a layer is taken as one site, since its method of [`observed`](@ref) does not do what it must: show the arrays of its
parameters, each once and in order, and compute what the layer does. Seen for a batch `x`, and kept.
"""
function one_site(layer, x, see::Recorder)
    return get!(see.whole, layer) do
        keeps_promise(layer, x, see.whole) && return false
        is_ours(which(observed, typeof.((layer, x, see)))) || warn_of_one_site(layer)
        return true
    end
end
@non_differentiable one_site(::Any, ::Any, ::Any)

is_ours(method::Method) = Base.moduleroot(method.module) === @__MODULE__

function warn_of_one_site(@nospecialize(layer))
    name = nameof(typeof(layer))
    @warn "the method of `observed` for $name is not used: it shows other arrays than the layer has, or computes something else. \
        $name is taken as one site, which is right and may be slow; see the docstring of `UDLBridge.observed`" maxlog=1 _id=name
    return nothing
end

function keeps_promise(layer, x, whole)
    see = Recorder(whole)
    y = observed(layer, x, see)
    own, shown = map(value, leaves(layer)), reduce(vcat, map(arrays, see.sites); init=Any[])
    return length(own) == length(shown) && all(map(===, own, shown)) && same_values(y, by_layer(layer, x))
end

"whether two results are equal, up to rounding and not up to any more"
function same_values(a::AbstractArray, b::AbstractArray)
    size(a) == size(b) || return false
    isempty(a) && return true
    return !(maximum(abs, a .- b) > sqrt(eps(float(real(eltype(b))))) * maximum(abs, b))
end
same_values(a::Union{Tuple,NamedTuple}, b::Union{Tuple,NamedTuple}) = length(a) == length(b) && all(map(same_values, a, b))
same_values(a, b) = isequal(a, b)

function observed(@nospecialize(chain::Chain), x, see::Recorder)
    for layer in Any[chain.layers...]
        x = observed_whole(layer, x, see)
    end
    return x
end

"the layer on a batch, with all of its parameters shown"
observed_whole(layer, x, see::Recorder) = one_site(layer, x, see) ? see(Whole(layer), x) : observed(layer, x, see)

# The backward pass is composed of the pullbacks of layers, in vectors of `Any`, down to the activations: Zygote's code is
# compiled once for every kind of layer. That of a whole chain is compiled for every network, and takes a minute for a deep
# one.

"""
    observed_pullback(layer, x, see::Observer) -> y, back

The layer on a batch, and its pullback, from the derivative with respect to `y` to that with respect to `x`; `nothing`
stands for zero. On the way back a [`Recorder`](@ref) takes the errors of sites, [`Gradients`](@ref) the derivatives with
respect to parameters, [`Inputs`](@ref) nothing.
"""
observed_pullback(layer, x, see::Observer) = single_pullback(layer, x, see)

function observed_pullback(@nospecialize(chain::Chain), x, see::Observer)
    backs = Any[]
    for layer in Any[chain.layers...]
        checkpoint()
        x, layer_back = whole_pullback(layer, x, see)
        push!(backs, layer_back)
    end
    return x, Δ -> pulled_through(backs, Δ)
end

function pulled_through(backs::Vector{Any}, d)
    for layer_back in Iterators.reverse(backs)
        checkpoint()
        d = pulled(d, layer_back)
    end
    return d
end

pulled(d, layer_back) = layer_back(d)
pulled(::Nothing, layer_back) = nothing

"the same, with all of the layer's parameters shown"
whole_pullback(layer, x, see::Observer) = observed_pullback(layer, x, see)
function whole_pullback(layer, x, see::Recorder)
    return one_site(layer, x, see) ? shown(see, Whole(layer), x) : observed_pullback(layer, x, see)
end

"[`observed_pullback`](@ref) of a layer that is not made of others"
function single_pullback(layer, x, see::Recorder)
    y, layer_back = Zygote.pullback(x -> observed(layer, x, see), x)
    return y, only ∘ layer_back
end

"Looks for nothing: what comes back is the derivative with respect to the input."
struct Inputs <: Observer end

function single_pullback(layer, x, ::Inputs)
    y, layer_back = Zygote.pullback(layer, x)
    return y, only ∘ layer_back
end

"a layer inside another on a batch: what a recorder sees of it is checked as [`observed_whole`](@ref) does"
observed_inside(layer, x, see) = observed(layer, x, see)
observed_inside(layer, x, see::Recorder) = observed_whole(layer, x, see)

function ChainRulesCore.rrule(::typeof(observed), layers::Union{Chain,SkipConnection,Parallel}, x, see::Recorder)
    y, chain_back = observed_pullback(layers, x, see)
    function back_of_all(Δ)
        d = chain_back(unthunk(Δ))
        return NoTangent(), NoTangent(), d === nothing ? NoTangent() : d, NoTangent()
    end
    return y, back_of_all
end

"`f.(z)` and its pullback"
activation_pullback(f, z) = by_duals(f, z) ? dual_pullback(f, z) : not_inferred(zygote_pullback)(f, z)
activation_pullback(::typeof(identity), z) = z, identity

# Inferred is compiled: Zygote's code for `f` would be made though it never runs.
not_inferred(f) = Base.inferencebarrier(f)

function zygote_pullback(f, z)
    y, activation_back = Zygote.pullback(z -> f.(z), z)
    return y, only ∘ activation_back
end

# Zygote takes such functions by dual numbers too, after seconds of compilation for each of them.
"whether `f` is a user's function of one number, without anything that it holds"
function by_duals(@nospecialize(f), @nospecialize(z))
    return f isa Function && Base.issingletontype(typeof(f)) && z isa Array{<:AbstractFloat} &&
        !(Base.moduleroot(parentmodule(f)) in (NNlib, Flux, Base, Core))
end

"`f.(z)` and its pullback, from one pass with numbers that move along one direction"
function dual_pullback(f, z::Array{T}) where {T}
    moving = map(v -> f(Along(v, one(v))), z)
    moving isa Array{<:Along{T}} || return not_inferred(zygote_pullback)(f, z) # a constant, or numbers of another type
    slopes = map(carried_along, moving)
    return map(ForwardDiff.value, moving), d -> d .* slopes
end
