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
from the derivative with respect to the layer's output. Where a layer has no rule, its own Zygote pullbacks are taken, one for
each sample.
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

"the arrays of the parameters that enter at a site, in the order of their names"
arrays(site::Site) = map(value, leaves(site.layer))

"""
    enter(layer, x)

The tensor that a layer's parameters make of `x`.
"""
enter(layer, x) = layer(x)

"""
    back(layer, x, d)

The derivative with respect to `x`, from the derivative `d` with respect to what [`enter`](@ref) made of it; those with respect
to the parameters are not needed.
"""
back(layer, x, d) = only(last(Zygote.pullback(layer, x))(d))

"the per-sample gradients (P, n) of each parameter of a layer; see [`Elementwise`](@ref)"
gradients(layer, x, d) = map(block -> reshape(last(block), :, size(d, ndims(d))), per_sample(layer, x, [d]))

"""
    observed(layer, x, see)

The layer on a batch, with `see(site, x)` for every tensor that parameters make of an `x`. The sites hold the arrays of the
layer's [`leaves`](@ref), each once and in their order; a layer whose sites do not is taken as one site instead.
"""
observed(layer, x, see) = has_parameters(layer) ? see(Elementwise(layer), x) : layer(x)

has_parameters(@nospecialize(layer)) = !isempty(leaves(layer))
@non_differentiable has_parameters(::Any)

"no observer: what the site makes of `x`, and nothing else"
unseen(site::Site, x) = enter(site.layer, x)

"Looks on while a batch goes forward and backward through a network; see [`observed_pullback`](@ref)."
abstract type Observer end

"""
    Recorder()

Records all sites, their inputs, and the sizes of their outputs. Under Zygote it does not differentiate with respect to
parameters: each backward pass leaves the errors of all sites, the derivatives with respect to their outputs, in `errors`;
`nothing` where the network's output does not depend on a site.
"""
struct Recorder <: Observer
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
        return number == 1 ? nothing : back(site.layer, x, d)
    end
    return z, caught
end

"whether the sites from number `first` on hold the arrays of the layer's parameters, each once and in order"
function shows(r::Recorder, first::Integer, @nospecialize(layer))
    own, shown = map(value, leaves(layer)), mapreduce(arrays, vcat, r.sites[first:end]; init=Any[])
    return length(own) == length(shown) && all(map(===, own, shown))
end

"forget the sites from number `first` on"
function forget!(r::Recorder, first::Integer)
    foreach(list -> resize!(list, first - 1), (r.sites, r.inputs, r.sizes, r.errors))
end

observed(chain::Chain, x, see::Recorder) = foldl((x, layer) -> observed_whole(layer, x, see), Any[chain.layers...]; init=x)

"the layer on a batch, with all of its parameters shown"
function observed_whole(layer, x, see::Recorder)
    first = length(see.sites) + 1
    y = observed(layer, x, see)
    shows(see, first, layer) && return y
    forget!(see, first)
    return see(Elementwise(layer), x)
end

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
        x, layer_back = whole_pullback(layer, x, see)
        push!(backs, layer_back)
    end
    return x, Δ -> foldl(pulled, reverse(backs); init=Δ)
end

pulled(d, layer_back) = layer_back(d)
pulled(::Nothing, layer_back) = nothing

"the same, with all of the layer's parameters shown"
whole_pullback(layer, x, see::Observer) = observed_pullback(layer, x, see)
function whole_pullback(layer, x, see::Recorder)
    first = length(see.sites) + 1
    y_back = observed_pullback(layer, x, see)
    shows(see, first, layer) && return y_back
    forget!(see, first)
    return shown(see, Elementwise(layer), x)
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

"""
    Gradients()

Each backward pass leaves the derivatives with respect to all parameters, in the order of [`leaves`](@ref), in `found`;
`nothing` stands for zero. They are Zygote's own: sites and the rules of this package play no part. One serves any number of
passes through the same network.
"""
struct Gradients <: Observer
    found::Vector{Any}
    own::IdDict{Any,Tuple{Int,Vector{Leaf}}} # for each layer, how many leaves are before its own, and these
end
Gradients() = Gradients(Any[], IdDict{Any,Tuple{Int,Vector{Leaf}}}())

"the leaves of a layer, and the number of those before them; places are given in the first pass"
function places!(see::Gradients, layer)
    return get!(see.own, layer) do
        before, own = length(see.found), leaves(layer)
        append!(see.found, fill(nothing, length(own)))
        return before, own
    end
end

function single_pullback(layer, x, see::Gradients)
    before, own = places!(see, layer)
    isempty(own) && return single_pullback(layer, x, Inputs())
    # No parameters come before the first ones: nobody needs the derivative with respect to what goes into these.
    through() = before == 0 ? Zygote.pullback(m -> m(x), layer) : Zygote.pullback(applied, layer, x)
    y, pullback = through()
    # Zygote adds up the gradients of a mutable layer (BatchNorm, GroupNorm) over the calls of one pullback.
    forgetful = any(leaf -> ismutable(leaf.layer), own)
    function layer_back(d)
        gradient, pulled... = (forgetful ? last(through()) : pullback)(d)
        for (k, leaf) in enumerate(own)
            see.found[before + k] = gradient_of(leaf, gradient)
        end
        return isempty(pulled) ? nothing : only(pulled)
    end
    return y, layer_back
end

applied(layer, x) = layer(x)

"one backward pass: the derivatives with respect to all parameters, in the order of [`leaves`](@ref)"
function gradients!(see::Gradients, network_back, d)
    fill!(see.found, nothing)
    network_back(d)
    return see.found
end

"a derivative with respect to the parameter `p` as an array like it"
filled(g::Array, ::AbstractArray) = g
filled(g, p::AbstractArray) = copyto!(similar(p, size(p)), g)
filled(::Nothing, p::AbstractArray) = fill!(similar(p, size(p)), 0)

function ChainRulesCore.rrule(::typeof(observed), chain::Chain, x, see::Recorder)
    y, chain_back = observed_pullback(chain, x, see)
    function back_of_all(Δ)
        d = chain_back(unthunk(Δ))
        return NoTangent(), NoTangent(), d === nothing ? NoTangent() : d, NoTangent()
    end
    return y, back_of_all
end

"`f.(z)` and its pullback"
function activation_pullback(f, z)
    y, activation_back = Zygote.pullback(z -> f.(z), z)
    return y, only ∘ activation_back
end
activation_pullback(::typeof(identity), z) = z, identity
